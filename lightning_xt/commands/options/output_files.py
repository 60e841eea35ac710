"""Files that options name, and commands write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lightning_xt.system.files import replace_file, require_replaceable
from lightning_xt.system.messages import UserError


def check_output(option: str, file: Path) -> None:
    """Check that a file can be written, before the work for its contents; UserError if it cannot.

    Args:
        option: the option that names the file, with the command, in messages.
        file: the file, or a link to it.
    """
    with _explain_errors(option, file):
        require_replaceable(file.resolve())


@contextmanager
def write_output(option: str, file: Path) -> Iterator[BinaryIO]:
    """Open a file that appears once it is whole; UserError if it cannot be written."""
    with _explain_errors(option, file), replace_file(file.resolve()) as out:
        yield out


@contextmanager
def _explain_errors(option: str, file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {file} cannot be written ({error.strerror or error}); name another file") from error
