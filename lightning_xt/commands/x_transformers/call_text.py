"""Text of a call, as an option of a command gives it."""

import sys
from pathlib import Path

from lightning_xt.system.messages import UserError


def read_call_text(given: str, option: str) -> str:
    """Return the text that an option gives itself, in a file, or on standard input; UserError if there is none.

    Args:
        given: the value of the option.
        option: its name in messages.
    """
    try:
        if given == "-":
            return sys.stdin.buffer.read().decode()
        if "(" not in given and given.strip():
            return Path(given).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{option}: {given} is not text in UTF-8 ({error.reason}); give the call of a model") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{option}: {given!r} is neither a call nor a file ({reason}); give the call of a model"
        ) from None
    return given
