"""JSON Schema of the types that options are annotated with."""

import datetime
import enum
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from lightning_xt.system.imports import list_families

Schema = dict[str, Any]
DescribeClass = Callable[[type, int], Schema]
"""Returns the schema of an option that takes a class of a family, from the family and the number of arguments that the
class is given when it is built."""

PLAIN: Mapping[Any, Schema] = types.MappingProxyType(
    {
        None: {"type": "null"},
        types.NoneType: {"type": "null"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: {"type": "number"},
        str: {"type": "string"},
        Path: {"type": "string"},
        # days, hours and so on, or a text such as 00:12:00:00
        datetime.timedelta: {"type": ["string", "object"]},
    }
)


def describe_type(hint: Any, describe_class: DescribeClass) -> Schema:
    """Return the schema of the values that an option with an annotation takes; {} for any value."""
    if hint in PLAIN:
        return dict(PLAIN[hint])
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is typing.Annotated:
        return describe_type(arguments[0], describe_class)
    if origin in (typing.Union, types.UnionType):
        return join([describe_type(each, describe_class) for each in arguments])
    if origin is Callable or hint is Callable:
        builds = arguments and inspect.isclass(arguments[-1]) and list_families(arguments[-1])
        # Other functions are named by their import path.
        return describe_class(arguments[-1], len(arguments[0])) if builds else {"type": ["string", "object"]}
    if inspect.isclass(origin or hint):
        return _describe_container(origin or hint, arguments, describe_class)
    return {}


def _describe_container(kind: type, arguments: tuple[Any, ...], describe_class: DescribeClass) -> Schema:
    """Return the schema of a class, such as that of a list; {} for any value."""
    if issubclass(kind, enum.Enum):
        return {"enum": [each.name for each in kind]}
    if issubclass(kind, Mapping):
        values = describe_type(arguments[1], describe_class) if len(arguments) == 2 else {}
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        items = [describe_type(each, describe_class) for each in arguments]
        return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}
    if kind is tuple or (
        kind.__module__ in ("builtins", "collections.abc") and issubclass(kind, (Iterable, AbstractSet))
    ):
        item = describe_type(arguments[0], describe_class) if arguments else {}
        return {"type": "array", **({"items": item} if item else {})}
    return describe_class(kind, 0) if list_families(kind) else {}


def join(schemas: list[Schema]) -> Schema:
    """Return a schema of the values that one of some schemas accepts."""
    found: list[Schema] = []
    for each in schemas:
        found += [one for one in each.get("anyOf", [each]) if one not in found]
    if {} in found:
        return {}
    simple = [each["type"] for each in found if set(each) == {"type"} and isinstance(each["type"], str)]
    rest = [each for each in found if set(each) != {"type"} or not isinstance(each["type"], str)]
    if len(simple) > 1:
        rest.append({"type": simple})
    elif simple:
        rest.append({"type": simple[0]})
    return rest[0] if len(rest) == 1 else {"anyOf": rest}
