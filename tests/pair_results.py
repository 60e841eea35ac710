"""Results of combinations of variants: built, refused or failed."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from catalogue import PLACED, randomise
from pair_catalogue import Built, build, get_slot, list_pairs
from pair_laws import check

Outcome = tuple[str, str]
"""One of `built`, `refused` and `failed`, and the reason."""


def names_part(message: str, name: str) -> bool:
    """Return whether a message names the class or the slot of a variant."""
    return re.search(rf"\b({PLACED[name][0].__name__}|{get_slot(name)})\b", message) is not None


def hold(names: Sequence[str], build: Callable[[Sequence[str]], Built]) -> Outcome:
    """Build a combination and hold it to the laws. A refusal names two of the variants at least."""
    torch.manual_seed(5)
    try:
        built = build(names)
    except ValueError as error:
        message = " ".join(str(error).split())
        named = sum(names_part(message, name) for name in names)
        return ("refused", message) if named > 1 else ("failed", f"refused without the names of both: {message}")
    except Exception as error:
        return "failed", f"building: {error!r}"
    try:
        check(built.kind, randomise(lambda: built.model), " ".join(names))
    except AssertionError as error:
        return "failed", str(error)
    except Exception as error:
        return "failed", f"running: {error!r}"
    return "built", ""


def hold_all(
    combinations: Iterable[Sequence[str]],
    build: Callable[[Sequence[str]], Built],
    record: Callable[[str, Any], None],
) -> dict[str, Outcome]:
    """Hold each combination to the laws, and record the outcomes; fail if one of them failed."""
    found = {" x ".join(names): hold(names, build) for names in combinations}
    # Plain, so that a process can send it to another.
    record("pairs", dict(Counter(outcome for outcome, _ in found.values())))
    failed = {key: reason for key, (outcome, reason) in found.items() if outcome == "failed"}
    assert failed == {}, failed
    return found


def find_refusals() -> tuple[list[tuple[str, str]], dict[tuple[str, str], str]]:
    """Build every pair; return those that are built, and the sentence of each refused one."""
    built, refused = list[tuple[str, str]](), dict[tuple[str, str], str]()
    for pair in list_pairs():
        try:
            build(pair)
            built.append(pair)
        except ValueError as error:
            refused[pair] = " ".join(str(error).split())
    return built, refused
