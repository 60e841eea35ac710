"""Files of plots: their names, and their writing."""

import warnings
from pathlib import Path
from typing import Any

from lightning_xt.system.files import replace_file, require_replaceable
from lightning_xt.system.messages import UserError

FORMATS = (".png", ".svg", ".pdf")


def check_plot(option: str, name: str) -> Path:
    """Return the file of a plot; UserError if its ending is not that of a format, or it cannot be written.

    Args:
        option: the option that names the file, with the command, in messages.
        name: name of the file.
    """
    file = Path(name)
    if file.suffix.lower() not in FORMATS:
        raise UserError(f"{option} {name} is not a plot's name; end it with .png, .svg or .pdf")
    try:
        require_replaceable(file)
    except OSError as error:
        raise _refuse(option, file, error) from error
    return file


def write_plot(figure: Any, option: str, file: Path) -> None:
    """Write a figure of matplotlib; UserError if the file cannot be written."""
    try:
        # A font may lack characters of a name.
        with warnings.catch_warnings(), replace_file(file) as out:
            warnings.filterwarnings("ignore", ".*missing from.*font.*", UserWarning)
            figure.savefig(out, format=file.suffix.lower().removeprefix("."), dpi=150)
    except OSError as error:
        raise _refuse(option, file, error) from error


def _refuse(option: str, file: Path, error: OSError) -> UserError:
    return UserError(f"{option} {file} cannot be written ({error.strerror or error}); name another file")
