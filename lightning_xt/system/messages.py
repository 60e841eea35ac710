"""Sentences for users, from exceptions and unknown names."""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightning_xt.system.renamed import explain_rename, find_old_names

MOST_NAMES = 20
"""Names that a message lists if no name is close."""
LONGEST, LONGEST_WORD = 1500, 400
"""Most characters of a sentence, and of a word in it."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that change a terminal or the order of its text, but for tabs and line breaks."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk."""


class UserError(Exception):
    """Mistake of the user; the message is all they read."""


class OwnError(UserError):
    """UserError of one process of several, which that process prints itself."""


def make_visible(text: str) -> str:
    """Return text for a terminal, on which its control characters are shown instead of obeyed."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def explain_unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence about an unknown name that offers its new name, else close ones, else all."""
    known = sorted(known)
    if way := explain_rename(name, known):
        return f"unknown {what} {name!r}; {way}"
    close = find_close_matches(name, known)
    more = f", and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    offer = f"did you mean {' or '.join(close)}?" if close else f"there is {', '.join(known[:MOST_NAMES])}{more}"
    return f"unknown {what} {name!r}" + (f"; {offer}" if known else "")


def find_close_matches(name: str, known: Iterable[str]) -> list[str]:
    """Find names that are close to the one given, or were called so, closest first; case does not matter."""
    by_lower = {each.lower(): each for each in known}
    old = find_old_names(by_lower.values())
    found = [old[each] for each in difflib.get_close_matches(name.lower(), old, n=1, cutoff=0.8)]
    found += [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.55)]
    return list(dict.fromkeys(found))


def explain_missing_value(message: str) -> str | None:
    """Return the sentence for argparse's message about an option without its value; None for another message."""
    match = re.search(r"argument (?:-\w/)?(-[\w.+-]+): expected one argument", message)
    return match and f"{match[1]} needs a value; one that begins with - is written as {match[1]}=VALUE"


def explain_error(error: BaseException) -> str | None:
    """Return the sentence for an error of the user; None for other errors, which need their traceback."""
    # What was typed may have line breaks, a sentence has none.
    own = _shorten(" ".join(str(error).split())) if isinstance(error, UserError) else find_own_sentence(error)
    sentence = own or _explain_full_disk(error) or _find_lightning_sentence(error)
    return None if sentence is None else make_visible(sentence)


def find_own_sentence(error: BaseException) -> str | None:
    """Find this package's message in an error or its causes; None if there is none."""
    for each in walk_chain(error):
        if isinstance(each, (ValueError, OSError)) and _is_raised_in(each, Path(__file__).resolve().parents[1]):
            return _shorten(" ".join(str(each).split()))
    return None


def walk_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error that was raised first, then those it was turned into."""
    if error is not None:
        # `from None` says that the later one is the better sentence.
        yield from walk_chain(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
        yield error


def find_system_reason(error: BaseException) -> str | None:
    """Find the system's reason; torch raises another error on top of the system's."""
    systems = (each for each in walk_chain(error) if isinstance(each, OSError))
    return next((each.strerror or str(each) for each in systems), None)


def _shorten(sentence: str) -> str:
    """Shorten a sentence that quotes a word or a value of thousands of characters."""
    sentence = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: f"{word[0][: LONGEST_WORD // 2]}...", sentence)
    return sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"


def _explain_full_disk(error: BaseException) -> str | None:
    """Return a sentence about a full disk, whoever wrote to it; None if the disk is not full."""
    for each in walk_chain(error):
        if isinstance(each, OSError) and each.errno in FULL:
            what = each.filename or "a file or the output"
            return f"{what} cannot be written ({os.strerror(each.errno)}); make room, then resume with --ckpt_path last"
    return None


def _find_lightning_sentence(error: BaseException) -> str | None:
    """Find Lightning's refusal in an error or its causes, wherever it came; None if there is none."""
    place = str(getattr(sys.modules.get("lightning"), "__file__", ""))
    for each in walk_chain(error) if place else ():
        if isinstance(each, Exception) and _is_raised_in(each, Path(place).resolve().parent):
            return f"trainer: {_shorten(' '.join(str(each).split())) or repr(each)}"
    return None


def _is_raised_in(error: BaseException, package: Path) -> bool:
    """Return whether a `raise` of a package made the error; one from its `zip` or `int` is a bug there."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not Path(frames[-1].filename).resolve().is_relative_to(package):
        return False
    # Unknown in an installation without sources.
    line = frames[-1].line
    return not line or line.startswith("raise")
