"""Facts that the docstring of a class states: what it does, its source, its options and their counterparts."""

import inspect
import re

import docstring_parser

PACKAGE = "lightning_xt"
URL = re.compile(r"https?://\S+?(?=[.,;:)]*(?:\s|$))")
COUNTERPARTS = re.compile(r"^In x-transformers: ([^.;]+)(?:;\s+([^.]+(?:\.(?!\s|$)[^.]*)*))?\.$", re.M)


def get_docstring(kind: type) -> docstring_parser.Docstring:
    return docstring_parser.parse(inspect.getdoc(kind) or "")


def get_summary(kind: type) -> str:
    """Return the first sentence of a class's docstring, in one line; "" if there is none."""
    return " ".join((get_docstring(kind).short_description or "").split())


def find_source(kind: type) -> str | None:
    """Return the first address that a class's docstring names; None if there is none."""
    found = URL.search(inspect.getdoc(kind) or "")
    return found and found[0]


def find_counterparts(kind: type) -> tuple[list[str], str | None]:
    """Return the options of x-transformers that a class stands for, as a user types them, and the remark about them."""
    found = COUNTERPARTS.search(inspect.getdoc(kind) or "")
    if found is None:
        return [], None
    return re.split(r",\s+", " ".join(found[1].split())), found[2] and " ".join(found[2].split())


def describe_options(kind: type) -> dict[str, str]:
    """Return the descriptions of a class's options, from its docstring and those of its bases in the package."""
    own = [each for each in reversed(kind.__mro__) if each.__module__.startswith(f"{PACKAGE}.")]
    return {p.arg_name: " ".join((p.description or "").split()) for each in own for p in get_docstring(each).params}
