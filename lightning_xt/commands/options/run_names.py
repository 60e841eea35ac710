"""Names of runs that a user chooses."""

from lightning_xt.system.messages import UserError


def check_name(name: str, option: str) -> None:
    """Raise a UserError if a name of a run is not the name of a folder.

    Args:
        name: the name.
        option: the option that sets the folder of all runs, for the message.
    """
    if not name.isprintable() or "/" in name or name in ("", ".", ".."):
        raise UserError(
            f"--name {name!r} is not the name of a folder; choose one without / and line breaks, and set {option} for "
            "another place"
        )
