"""Files of plots: their names, and their writing."""

import warnings
from pathlib import Path
from typing import Any

from lightning_xt.commands.options.output_files import check_output, write_output
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
    check_output(option, file)
    return file


def write_plot(figure: Any, option: str, file: Path) -> None:
    """Write a figure of matplotlib; UserError if the file cannot be written."""
    # A font may lack characters of a name.
    with warnings.catch_warnings(), write_output(option, file) as out:
        warnings.filterwarnings("ignore", ".*missing from.*font.*", UserWarning)
        figure.savefig(out, format=file.suffix.lower().removeprefix("."), dpi=150)
