"""Every pair of variants keeps the laws in one model, or is refused when it is built, by a message that names both.

`pytest -m slow tests/test_pairs.py` runs all of them.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from catalogue import PLACED
from interactions import PAGE, read_refusals, write_page
from pair_catalogue import build, build_across, fits, list_partners, meet_across
from pair_results import find_refusals, hold_all

Record = Callable[[str, Any], None]
NAMES = list(PLACED)
EACH = pytest.mark.parametrize("name", NAMES[:-1])
SIZE = 5


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
    """Also that the page of the documentation has those that are refused, and no others."""
    written = read_refusals(PAGE.read_text("utf-8"))
    known = random.Random("refused").sample([pair for pair in written if in_order(pair)], 5)
    found = hold_all([*draw("pairs", 2, 90), *known], build, record_property)
    refused = {tuple(key.split(" x ")): reason for key, (outcome, reason) in found.items() if outcome == "refused"}
    assert refused == {pair: written[pair] for pair in (tuple(key.split(" x ")) for key in found) if pair in written}


def in_order(names: tuple[str, ...]) -> bool:
    return list(names) == sorted(names, key=NAMES.index)


def test_the_page_can_be_read_again() -> None:
    refused = {
        ("a=One", "b=Two"): "b: Two has none, so a One needs another",
        ("a=One", "b=Three"): "b: Three has none, so a One needs another",
        ("b=Two", "c=Four"): "c: Four and b Two exclude each other",
    }
    page = write_page([("a=One", "c=Four")], refused)
    assert "\n1 of 4 pairs (25.0%) are built, 3 are refused.\n" in page
    assert "\n| `a` | `b` **0 of 2**, `c` 1 |\n" in page
    assert "\n| `a` One | `b` Two, `b` Three | b: ... has none, so a One needs another |\n" in page
    assert read_refusals(page) == {**refused, **{(other, one): reason for (one, other), reason in refused.items()}}


@pytest.mark.slow
def test_the_page_is_that_of_the_pairs() -> None:
    assert PAGE.read_text("utf-8") == write_page(*find_refusals()), "run python docs/interactions.py"


def test_some_pairs_keep_the_laws_in_an_encoder_decoder(record_property: Record) -> None:
    hold_all(filter(meet_across, draw("across", 2, 60)), build_across, record_property)


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
