"""Has the parser ask before it imports what a value names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _actions, _typehints, _util

from lightning_xt.system.imports import refused_find, refused_path


class _Refused(BaseException):
    """What the parser does not take for a value that another type may fit, as it does any Exception."""


@contextmanager
def guarded_imports() -> Iterator[None]:
    """Within the block no option and no checkpoint leads to what `core.imports` refuses.

    Versions of jsonargparse since 4.53 have a list of what may be imported, but it is one for the whole process, and
    cannot say that a user's own modules are allowed, whatever their names are.

    Raises:
        ValueError: one would.
    """
    original = _util.import_object

    def guarded(name: str, **options: Any) -> Any:
        # The parser says itself what is no path.
        if isinstance(name, str) and "." in name and (reason := refused_path(name)):
            raise _Refused(reason)
        found = original(name, **options)
        if reason := refused_find(name, found):
            raise _Refused(reason)
        return found

    # Where values are read; what code names is imported elsewhere.
    places: tuple[Any, ...] = (_actions, _typehints)
    before = [place.import_object for place in places]
    try:
        for place in places:
            place.import_object = guarded
        yield
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    finally:
        for place, function in zip(places, before, strict=True):
            place.import_object = function
