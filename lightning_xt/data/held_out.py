"""Validation and test splits: a fraction of a corpus, or separate files."""

from typing import NamedTuple


class HeldOut(NamedTuple):
    """Held-out splits: for `validation` and `test` each a fraction or a path.

    Args:
        fractions: the fraction of the corpus that each split takes; 0 for a split with a path.
        paths: the path of each split; None where the split is a fraction.
    """

    fractions: dict[str, float]
    paths: dict[str, str | None]


def parse_held_out(validation: float | str, test: float | str) -> HeldOut:
    """Separate fractions of the corpus from paths; ValueError for one outside [0, 1), or if all is held out."""
    splits = {"validation": validation, "test": test}
    fractions = {name: 0.0 if isinstance(value, str) else float(value) for name, value in splits.items()}
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise ValueError(
                f"--data.{name} {value} is not a fraction: it must be at least 0 and below 1, such as 0.05; write a "
                f"path that looks like a number with its folder, such as ./{value:g}"
            )
    if sum(fractions.values()) >= 1:
        raise ValueError(
            f"--data.validation {fractions['validation']} and --data.test {fractions['test']} leave nothing to train "
            "on; lower them until their sum is below 1"
        )
    return HeldOut(fractions, {name: value if isinstance(value, str) else None for name, value in splits.items()})


def cut_splits(count: int, fractions: dict[str, float], place: str, items: str) -> dict[str, tuple[int, int]]:
    """Cut numbered items into train | validation | test; return the first number of each split and that after its last.

    A split with a fraction has at least one item, however few there are.

    Args:
        count: number of items.
        fractions: the fraction of each split but the training split.
        place: name of the data in messages.
        items: their name in the plural.

    Raises:
        ValueError: nothing is left to train on.
    """
    sizes = {name: max(1, int(count * fraction)) if fraction else 0 for name, fraction in fractions.items()}
    test = count - sizes["test"]
    validation = test - sizes["validation"]
    if validation < 1:
        raise ValueError(
            f"{place}: of its {count} {items} validation takes {sizes['validation']} and test {sizes['test']}, which "
            "leaves none to train on; give more, or set --data.validation 0 or --data.test 0"
        )
    return {"train": (0, validation), "validation": (validation, test), "test": (test, count)}
