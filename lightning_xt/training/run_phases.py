"""Phases of a run: their length in optimizer steps."""


def resolve_steps(where: str, name: str, length: int | float, total_steps: int) -> int:
    """Return the steps of a phase: a number, or as a float a fraction of the run; ValueError if out of range.

    Args:
        where: slot and class of the option, such as "schedule: WarmupStableDecay".
        name: name of the option.
        length: its value.
        total_steps: optimizer steps of the run.
    """
    fraction = isinstance(length, float)
    if not 0 <= length <= (1 if fraction else total_steps):
        limit = "as a fraction of the run from 0.0 to 1.0" if fraction else f"from 0 to {total_steps} optimizer steps"
        raise ValueError(
            f"{where} has {name} {length}, which must be {limit}; give a whole number for steps, or a number with a "
            "point for a fraction"
        )
    return round(length * total_steps) if fraction else int(length)
