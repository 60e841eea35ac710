"""Checks of options, told in one sentence."""


def check_option(
    where: str,
    name: str,
    value: int | float | None,
    *,
    least: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
) -> None:
    """Refuses a number that an option cannot have.

    Args:
        where: slot and class the option belongs to, such as "position: Rotary".
        name: the option.
        value: the number given; None is not checked.
        least: the smallest value allowed. None = any.
        above: a value too small by itself. None = none is.
        below: a value too large by itself. None = none is.

    Raises:
        ValueError: the value breaks a rule.
    """
    if value is None:
        return
    rules = []
    if least is not None:
        rules.append((value >= least, f"at least {least}"))
    if above is not None:
        rules.append((value > above, f"above {above}"))
    if below is not None:
        rules.append((value < below, f"below {below}"))
    if not all(kept for kept, _ in rules):
        raise ValueError(f"{where} has {name} {value}, which must be {' and '.join(rule for _, rule in rules)}")
