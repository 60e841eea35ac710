"""Rules that several data modules hold their options to."""


def require_at_least(option: str, value: int, minimum: int) -> None:
    """Raises a ValueError that names the option unless its value reaches the minimum."""
    if value < minimum:
        raise ValueError(
            f"data.{option} must be at least {minimum}, not {value}; set --data.{option} {minimum} or more"
        )
