"""From exceptions to the one sentence that a user reads."""

import difflib
import errno
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightning_xt.system.renamed import explain_rename

MOST_NAMES = 20
"""The names a message lists where none is like the one given."""
LONGEST, LONGEST_WORD = 1500, 400
"""Characters that a sentence and a word of it may have."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when there is no room."""


class UserError(Exception):
    """A mistake of the user's; the message is the whole of what they are told."""


class OwnError(UserError):
    """One that a single process of several may meet, which tells it itself."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence about an unknown name that offers its new name, else close ones, else all."""
    known = sorted(known)
    if way := explain_rename(name, known):
        return f"unknown {what} {name!r}; {way}"
    close = close_matches(name, known)
    more = f", and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    offer = f"did you mean {' or '.join(close)}?" if close else f"there is {', '.join(known[:MOST_NAMES])}{more}"
    return f"unknown {what} {name!r}; {offer}"


def close_matches(name: str, known: Iterable[str]) -> list[str]:
    """Names like the one given, closest first; case does not matter."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.55)
    return [by_lower[each] for each in found]


def sentence_for(error: BaseException) -> str | None:
    """What to tell the user of an error; None if it is no mistake of theirs, and needs its traceback."""
    # What was typed may have line breaks, a sentence has none.
    own = _shortened(" ".join(str(error).split())) if isinstance(error, UserError) else own_sentence(error)
    return own or _no_room(error)


def own_sentence(error: BaseException) -> str | None:
    """The message of this package in an error, or in what it was turned from; None if there is none."""
    for each in chain(error):
        if isinstance(each, (ValueError, OSError)) and _raised_here(each):
            return _shortened(" ".join(str(each).split()))
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error that was raised first, then those it was turned into."""
    if error is not None:
        # `from None` says that the later one is the better sentence.
        yield from chain(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
        yield error


def system_reason(error: BaseException) -> str | None:
    """What the system says; torch tells of a failed write by an error of its own, on top of the system's."""
    systems = (each for each in chain(error) if isinstance(each, OSError))
    return next((each.strerror or str(each) for each in systems), None)


def _shortened(sentence: str) -> str:
    """The sentence, of which nobody reads more where a word or a value of thousands of characters was typed."""
    sentence = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: f"{word[0][: LONGEST_WORD // 2]}...", sentence)
    return sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"


def _no_room(error: BaseException) -> str | None:
    """A full disk may be met wherever something is written, by others too; None if that is not what happened."""
    for each in chain(error):
        if isinstance(each, OSError) and each.errno in FULL:
            what = f"{each.filename} cannot be written" if each.filename else "a file cannot be written"
            return f"{what} ({os.strerror(each.errno)}); make room, then go on with --ckpt_path last"
    return None


def _raised_here(error: BaseException) -> bool:
    """Whether a `raise` of this package made the error; what a `zip` or an `int` of it says is a fault of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).resolve().parents[1]
    if not frames or not Path(frames[-1].filename).resolve().is_relative_to(package):
        return False
    # An installation without sources cannot tell.
    line = frames[-1].line
    return not line or line.startswith("raise")
