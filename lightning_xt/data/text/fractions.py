"""Shares that are cut from a corpus for validation and test."""


def held_out(fractions: dict[str, float], own_paths: dict[str, str | None]) -> dict[str, float]:
    """The shares that are cut from the data: none where a split has data of its own.

    Args:
        fractions: the share of each split.
        own_paths: what each split has of its own.

    Raises:
        ValueError: a share is impossible, or nothing would be left.
    """
    for split, value in fractions.items():
        if not 0 <= value < 1:
            raise ValueError(
                f"data.{split}_fraction must be at least 0 and below 1, not {value}; it is a share of the text, "
                f"such as --data.{split}_fraction 0.05"
            )
    cut = {split: 0.0 if own_paths[split] is not None else value for split, value in fractions.items()}
    if sum(cut.values()) >= 1:
        raise ValueError(
            f"data.validation_fraction ({cut['validation']}) and data.test_fraction ({cut['test']}) leave nothing to "
            "train on; lower them until their sum is below 1"
        )
    return cut
