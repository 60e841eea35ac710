"""Range checks of options."""


def check_option(
    where: str,
    name: str,
    value: int | float | None,
    *,
    least: int | float | None = None,
    most: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
) -> None:
    """Refuse a number outside the range of an option.

    Args:
        where: slot and class of the option, such as "position: Rotary".
        name: name of the option.
        value: its value; None is not checked.
        least: smallest valid value. None = no limit.
        most: largest valid value. None = no limit.
        above: largest value that is too small. None = no limit.
        below: smallest value that is too large. None = no limit.

    Raises:
        ValueError: the value is outside the range.
    """
    if value is None:
        return
    rules = []
    if least is not None and most is not None:
        rules.append((least <= value <= most, f"from {least} to {most}"))
    elif least is not None:
        rules.append((value >= least, f"at least {least}"))
    if above is not None:
        rules.append((value > above, f"above {above}"))
    if most is not None and least is None:
        rules.append((value <= most, f"at most {most}"))
    if below is not None:
        rules.append((value < below, f"below {below}"))
    if not all(kept for kept, _ in rules):
        raise ValueError(f"{where} has {name} {value}, which must be {' and '.join(rule for _, rule in rules)}")
