"""Every pair of variants keeps the laws in one model, or is refused when it is built, by a message that names both.

`pytest -m slow tests/test_pairs.py` runs all of them; `--pairs FILE` writes what became of each.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from catalogue import PLACED
from pair_catalogue import build, build_across, fits, list_partners, meet_across
from pair_results import hold_all

Record = Callable[[str, Any], None]
NAMES = list(PLACED)
EACH = pytest.mark.parametrize("name", NAMES[:-1])
TUPLES, SIZE = 600, 5


@pytest.mark.slow
@EACH
def test_a_variant_and_each_later_one_keep_the_laws(name: str, record_property: Record) -> None:
    hold_all([(name, other) for other in list_partners(name)], build, record_property)


@pytest.mark.slow
@EACH
def test_a_variant_and_each_later_one_keep_the_laws_in_an_encoder_decoder(name: str, record_property: Record) -> None:
    pairs = [(name, other) for other in list_partners(name)]
    hold_all([pair for pair in pairs if meet_across(pair)], build_across, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(12))
def test_five_variants_keep_the_laws(part: int, record_property: Record) -> None:
    hold_all(draw(f"five {part}", SIZE, 50), build, record_property)


def test_some_pairs_keep_the_laws(record_property: Record) -> None:
    hold_all(draw("pairs", 2, 100), build, record_property)


def test_some_pairs_keep_the_laws_in_an_encoder_decoder(record_property: Record) -> None:
    hold_all(filter(meet_across, draw("across", 2, 30)), build_across, record_property)


def test_some_fives_keep_the_laws(record_property: Record) -> None:
    hold_all(draw("five", SIZE, 15), build, record_property)


def draw(seed: str, size: int, count: int) -> list[tuple[str, ...]]:
    """Draw combinations of variants, always the same ones."""
    rng, found = random.Random(seed), list[tuple[str, ...]]()
    while len(found) < count:
        names = tuple(sorted(rng.sample(NAMES, size), key=NAMES.index))
        if fits(names):
            found.append(names)
    return found
