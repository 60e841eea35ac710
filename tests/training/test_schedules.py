import math

import numpy as np
import pytest

from lightning_xt.training.optim.schedules.constant import Constant
from lightning_xt.training.optim.schedules.inverse_square_root import InverseSquareRoot
from lightning_xt.training.optim.schedules.warmup_cosine import WarmupCosine
from lightning_xt.training.optim.schedules.warmup_stable_decay import WarmupStableDecay


def test_warmup_cosine_by_hand():
    schedule = WarmupCosine(13, warmup_steps=4, min_fraction=0.2)
    assert [schedule(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule(4) == 1.0
    assert schedule(8) == pytest.approx(0.2 + 0.8 * 0.5)  # half way from 4 to 12
    assert schedule(6) == pytest.approx(0.2 + 0.4 * (1 + math.sqrt(0.5)))
    assert schedule(12) == pytest.approx(0.2)
    assert schedule(99) == pytest.approx(0.2)


def test_constant_by_hand():
    assert [Constant(9, warmup_steps=2)(step) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert Constant(9, warmup_steps=0)(0) == 1.0


@pytest.mark.parametrize("schedule", [WarmupCosine, Constant, WarmupStableDecay, InverseSquareRoot])
@pytest.mark.parametrize("warmup_steps", [-1, 5, 6])
def test_a_warmup_must_be_shorter_than_the_run(schedule, warmup_steps):
    with pytest.raises(ValueError, match=f"has warmup_steps {warmup_steps}, which .*max_steps \\(5\\)"):
        schedule(5, warmup_steps=warmup_steps)


def test_a_fraction_is_a_fraction():
    with pytest.raises(ValueError, match=r"min_fraction 1\.5"):
        WarmupCosine(5, warmup_steps=0, min_fraction=1.5)


def test_warmup_stable_decay_by_hand():
    schedule = WarmupStableDecay(13, warmup_steps=2, decay=4, min_fraction=0.2)
    assert schedule.stable_steps == 7
    assert [schedule(step) for step in range(9)] == [0.5, *[1.0] * 8]
    assert schedule(9) == pytest.approx(0.2 + 0.8 * 0.5)  # a quarter of the way, of which the root is a half
    assert schedule(10) == pytest.approx(0.2 + 0.8 * (1 - math.sqrt(0.5)))
    assert schedule(12) == schedule(99) == pytest.approx(0.2)


def test_a_fraction_of_the_run_decays():
    schedule = WarmupStableDecay(100, decay=0.25, min_fraction=0.0)
    assert (schedule.warmup_steps, schedule.stable_steps, schedule.decay_steps) == (5, 70, 25)
    assert [schedule(step) for step in (4, 74, 99)] == [1.0, 1.0, 0.0]
    assert schedule(75) == pytest.approx(1 - 0.2)
    assert [WarmupStableDecay(9, warmup_steps=0, decay=0)(step) for step in (0, 8, 9)] == [1.0] * 3


@pytest.mark.parametrize("decay", [7, 0.7])
def test_phases_fit_into_the_run(decay):
    said = r"has 4 steps of warm-up and 7 of decay, more than trainer\.max_steps \(10\); lower"
    with pytest.raises(ValueError, match=said):
        WarmupStableDecay(10, warmup_steps=4, decay=decay)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"decay": 1.5}, "decay 1.5, which must be as a fraction of the run from 0.0 to 1.0; give a whole number for"),
        ({"decay": -1}, "decay -1, which must be from 0 to 10 optimizer steps"),
        ({"decay": 11}, "decay 11, which must be from 0 to 10 optimizer steps"),
        ({"min_fraction": -0.5}, "min_fraction -0.5, which must be from 0 to 1"),
    ],
)
def test_phases_out_of_range(options, rule):
    with pytest.raises(ValueError, match=f"schedule: WarmupStableDecay has {rule}"):
        WarmupStableDecay(10, **options)


def test_inverse_square_root_by_hand():
    schedule = InverseSquareRoot(99, warmup_steps=4)
    assert [schedule(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [schedule(15), schedule(35), schedule(63)] == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert [InverseSquareRoot(9, warmup_steps=0)(step) for step in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("total", [1, 2, 3, 7, 20])
def test_cases_d2_schedules_of_short_runs_are_those_of_numpy(total):
    """Every step of every warm-up that fits, computed a phase at a time."""
    for warmup in range(total):
        rising, rest = np.linspace(0, 1, warmup + 1)[1:], total - warmup
        cosine = 0.2 + 0.8 * (1 + np.cos(np.linspace(0, np.pi, rest))) / 2
        decay = rest // 2
        falling = 0.2 + 0.8 * (1 - np.sqrt(np.linspace(0, 1, decay + 1)[1:]))
        peak = max(1, warmup)
        later = np.sqrt(peak / np.arange(warmup + 1, total + 1))
        for schedule, expected in (
            (Constant(total, warmup_steps=warmup), np.ones(rest)),
            (WarmupCosine(total, warmup_steps=warmup, min_fraction=0.2), cosine),
            (InverseSquareRoot(total, warmup_steps=warmup), later),
            (
                WarmupStableDecay(total, warmup_steps=warmup, decay=decay, min_fraction=0.2),
                np.concatenate([np.ones(rest - decay), falling]),
            ),
        ):
            found = [schedule(step) for step in range(total)]
            np.testing.assert_allclose(found, np.concatenate([rising, expected]), rtol=1e-12)
            assert all(0 < each <= 1 for each in found)
