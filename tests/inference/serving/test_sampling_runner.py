"""Sampled sequences of several windows share the rows, and none of them keeps others from decoding."""

from dataclasses import replace

import pytest
import torch
from served_models import Client, complete_alone, make_engine

from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.events import JobEnd

pytestmark = pytest.mark.usefixtures("no_shape_checks")
SHORT = GenerationOptions(temperature=0, max_new_tokens=3)
LONG = replace(SHORT, max_new_tokens=40)


class Steps:
    """Engine whose thread is the test: jobs are decoded step by step."""

    def __init__(self, **options):
        self.engine = make_engine(start=False, **options)
        self.worker = self.engine._workers["lm"]

    def submit(self, window, options=LONG):
        client = Client()
        self.engine.complete("lm", "abc", replace(options, window=window), client)
        return client

    def advance(self, steps=1):
        with torch.inference_mode():
            for _ in range(steps):
                self.engine._take_commands()
                self.worker.advance()

    @property
    def rows(self):
        """Number of sequences that are decoded, by window."""
        return {window: len(each.sequences) for window, each in self.worker._sampling._windows.items()}


def has_ended(client):
    return any(isinstance(each, JobEnd) for each in client.events)


def test_windows_do_not_keep_sequences_without_one_from_decoding():
    steps = Steps()
    windowed = [steps.submit(3), steps.submit(5), steps.submit(7)]
    plain = steps.submit(None, SHORT)
    steps.advance(5)
    assert has_ended(plain) and plain.text() == complete_alone("abc", SHORT)[0]
    assert windowed[0].events and windowed[1].events and not windowed[2].events


def test_a_window_that_waits_is_next_and_later_ones_do_not_overtake_it():
    steps = Steps()
    first, second = steps.submit(3, SHORT), steps.submit(5)
    steps.advance()
    waiting, later = steps.submit(7, SHORT), steps.submit(5, SHORT)
    steps.advance()
    assert not waiting.events and not later.events
    steps.advance(8)
    assert has_ended(first) and has_ended(waiting) and has_ended(later) and not has_ended(second)
    assert waiting.text() == complete_alone("abc", replace(SHORT, window=7))[0]


def test_all_windows_have_the_rows_together():
    steps = Steps(rows=3)
    for window in (3, 5, None, 3, 5, None):
        steps.submit(window)
    steps.advance(2)
    assert steps.rows == {3: 1, 5: 1, None: 1}
