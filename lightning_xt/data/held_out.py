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
