"""Time left of an operation, from its speed so far."""

import pytest

from lightning_xt.system.time_left import TimeLeft, format_seconds


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (80, "0:01:20"), (3725.0, "1:02:05")])
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_the_time_left_follows_from_the_speed():
    clock = Clock()
    left = TimeLeft(100, done=20, clock=clock)
    assert left.estimate(20) is None
    clock.now += 30
    # 40 of the 80 in 30 seconds; what was there before took none of them.
    assert left.estimate(60) == 30
    assert left.describe(60) == "60 %, 0:00:30 left"
    assert TimeLeft(None, clock=clock).estimate(7) is None
    assert left.estimate(130) == 0


def test_without_a_total_the_time_so_far_is_shown():
    clock = Clock()
    left = TimeLeft(None, clock=clock)
    clock.now += 75
    assert left.describe(7) == "0:01:15 so far"


def test_lines_are_due_at_doubling_times():
    clock = Clock()
    left, due = TimeLeft(1000, clock=clock), []
    for second in range(1, 101):
        clock.now = 100 + second
        if left.is_due():
            due.append(second)
    assert due == [10, 20, 40, 80]
