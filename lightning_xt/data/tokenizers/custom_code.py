"""Source code of custom tokenizers."""

import inspect
import sys
from typing import Any


def read_custom_code(kind: type) -> list[str]:
    """Return the name and the module's source of a class and of its bases; none for those of this package and Python.

    Tokens that other code has written are not those of the tokenizer.
    """
    known = {"lightning_xt", *sys.stdlib_module_names}
    custom = [each for each in kind.__mro__ if each.__module__.partition(".")[0] not in known]
    return [f"{each.__module__}.{each.__qualname__} {_read_source(each)}" for each in custom]


def _read_source(kind: type) -> str:
    """Return the source of a class's module, or of its methods in a notebook, which is not a file."""
    methods = (_get_source(each) for each in vars(kind).values() if inspect.isfunction(each))
    return _get_source(sys.modules.get(kind.__module__)) or "".join(methods)


def _get_source(part: Any) -> str:
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        return ""
