"""JSON Schema of the classes that options take: a name, or a name and options."""

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from jsonargparse import Namespace

from lightning_xt.commands.catalogue.families import get_hints
from lightning_xt.commands.options.help_text import clean_text, find_description
from lightning_xt.commands.options.option_help import list_class_options, list_variants
from lightning_xt.commands.schemas.option_types import Schema, describe_type, join
from lightning_xt.system.discovery import import_path
from lightning_xt.system.docstrings import find_source, get_summary
from lightning_xt.system.imports import PACKAGES

OWN = "|".join(PACKAGES)
FOREIGN: Schema = {"type": "string", "pattern": rf"^(?!({OWN})\.)\w+(\.\w+)+$|\.(ya?ml|json)$"}
"""A class of the user's own modules, or a file with the options of a class."""
MOST_CLASSES = 100
"""Classes of a family that are listed; torch has hundreds of modules."""
KEYS = ("class_path", "init_args", "dict_kwargs")


class ClassDefinitions:
    """Definitions of the classes of options, each made once."""

    def __init__(self) -> None:
        self._found: dict[str, Schema] = {}
        self._names: dict[str, Any] = {}
        self._families: dict[str, tuple[type, dict[type, Schema]]] = {}

    def collect(self) -> dict[str, Schema]:
        """Return all definitions by name."""
        # Options of a family are known when those of all classes are.
        for name, (family, options) in self._families.items():
            self._found |= self._define_family(name, family, options)
        return dict(sorted(self._found.items()))

    def describe_type(self, hint: Any) -> Schema:
        """Return the schema of an annotation."""
        return describe_type(hint, self.refer_to_family)

    def refer_to_family(self, family: type, given: int) -> Schema:
        """Return a reference to the definition of a family.

        Args:
            family: base class of the classes that an option takes.
            given: how many arguments such a class is given when it is built.
        """
        name, new = self._name(family, ("family", family, given))
        if new:
            self._families[name] = (family, {})
            variants = [each for each in list_variants((family,)) if _is_named(each)]
            if len(variants) <= MOST_CLASSES:
                self._families[name] = (family, {each: self._refer_to_options(each, given) for each in variants})
        return _refer(name)

    def _refer_to_options(self, kind: type, given: int) -> Schema:
        """Return a reference to the definition of the options of a class."""
        name, new = self._name(kind, ("options", kind, given), ".options")
        if new:
            self._found[name] = self._define_options(kind, given)
        return _refer(name)

    def _define_family(self, name: str, family: type, options: Mapping[type, Schema]) -> dict[str, Schema]:
        """Return the definitions of a family: its names, a name with options, and options without a name.

        Options without a name are those of the class that stands in the slot already. An overlay does not say which one
        that is, so it may have those of any class of the family.
        """
        if not options:
            return {name: {"type": ["string", "object"]}}
        merged = self._merge(list(options.values()))
        with_class = {"required": ["class_path"]}
        by_class = {
            "type": "object",
            "properties": {
                "class_path": {"description": f"the class: a {family.__name__}", **_refer(f"{name}.name")},
                "init_args": {"description": "options of the class", "type": "object"},
                "dict_kwargs": {"description": "options that the class passes on unseen", "type": "object"},
                **merged["properties"],
            },
            "additionalProperties": _accepts_any(merged),
            "allOf": [
                {"if": with_class, "then": {"propertyNames": {"enum": list(KEYS)}}},
                {"if": {"not": with_class}, "then": {"properties": {"init_args": _refer(f"{name}.init_args")}}},
                *(_choose(kind, reference) for kind, reference in options.items()),
            ],
        }
        return {
            name: {"anyOf": [_refer(f"{name}.name"), _refer(f"{name}.class")]},
            f"{name}.name": {"anyOf": [_list_names(options), _match_paths(options), FOREIGN]},
            f"{name}.class": by_class,
            f"{name}.init_args": merged,
        }

    def _define_options(self, kind: type, given: int) -> Schema:
        """Return the schema of the options of a class."""
        parameters, hints = list_class_options(kind, given), get_hints(kind)
        properties: dict[str, Schema] = {}
        for name, parameter in parameters.items():
            schema = self.describe_type(hints.get(name, parameter.annotation))
            properties |= describe_option(name, schema, clean_text(find_description(name, kind)), parameter.default)
        closed = {} if _takes_others(kind) else {"additionalProperties": False}
        return {"description": _describe(kind), "type": "object", "properties": properties, **closed}

    def _merge(self, references: Sequence[Schema]) -> Schema:
        """Return the schema of options of any of some classes."""
        found = [self._found[each["$ref"].rpartition("/")[2]] for each in references]
        properties: dict[str, Schema] = {}
        for each in found:
            for name, schema in each.get("properties", {}).items():
                before = properties.get(name)
                properties[name] = schema if before is None else _unite(before, schema)
        closed = {} if any(map(_accepts_any, found)) else {"additionalProperties": False}
        return {"type": "object", "properties": properties, **closed}

    def _name(self, kind: type, key: tuple[Any, ...], end: str = "") -> tuple[str, bool]:
        """Return the name of a definition, and whether it is new."""
        for name in (f"{kind.__name__}{end}", f"{import_path(kind)}{end}", f"{import_path(kind)}.{key[-1]}{end}"):
            if name not in self._names:
                self._names[name] = key
                return name, True
            if self._names[name] == key:
                return name, False
        raise AssertionError(f"two definitions of {key}")


def describe_option(name: str, schema: Schema, text: str, default: Any) -> dict[str, Schema]:
    """Return the properties for an option: its own, and where it takes a list that which appends to it."""
    described = {**({"description": text} if text else {}), **schema}
    found = {name: described | _format_default(default)}
    lists = [each for each in schema.get("anyOf", [schema]) if each.get("type") == "array"]
    if lists:
        items = lists[0].get("items", {})
        appended = join([lists[0], items]) if isinstance(items, dict) else lists[0]
        found[f"{name}+"] = {"description": f"appended to {name}", **appended}
    return found


def _format_default(default: Any) -> Schema:
    """Return a default as JSON, if it can be; a class by its name."""
    built = default.func if isinstance(default, partial) else default
    if inspect.isclass(built) and built is not inspect.Parameter.empty:
        return {"default": built.__name__}
    if isinstance(default, (dict, Namespace)) and "class_path" in default:
        return {"default": str(default["class_path"]).rpartition(".")[2]}
    if default is None or (isinstance(default, (bool, int, str)) and default != "==SUPPRESS=="):
        return {"default": default}
    # JSON has no numbers for infinity and NaN.
    if isinstance(default, float):
        return {"default": default} if abs(default) < float("inf") else {}
    plain = isinstance(default, (list, tuple)) and all(isinstance(each, (int, float, str)) for each in default)
    return {"default": list(default)} if plain and default else {}


def _unite(one: Schema, other: Schema) -> Schema:
    """Return the schema of an option that two classes have."""
    facts = ("description", "default")
    types = [{key: value for key, value in each.items() if key not in facts} for each in (one, other)]
    same = {key: one[key] for key in facts if key in one and one[key] == other.get(key)}
    return {**({"description": one["description"]} if "description" in one else {}), **same, **join(types)}


def _refer(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _list_names(variants: Iterable[type]) -> Schema:
    kinds = list(variants)
    # Editors show the descriptions next to the names.
    return {"enum": [each.__name__ for each in kinds], "enumDescriptions": [get_summary(each) for each in kinds]}


def _match_paths(variants: Iterable[type]) -> Schema:
    names = "|".join(each.__name__ for each in variants)
    return {"type": "string", "pattern": rf"^({OWN})\.([\w.]+\.)?({names})$"}


def _choose(kind: type, options: Schema) -> Schema:
    """Return the rule that a class takes its own options."""
    path = {"type": "string", "pattern": rf"^(({OWN})\.([\w.]+\.)?)?{kind.__name__}$"}
    return {
        "if": {"properties": {"class_path": path}, "required": ["class_path"]},
        "then": {"properties": {"init_args": options}},
    }


def _is_named(kind: type) -> bool:
    """Return whether a config may name a class: it is public and of the packages that configs name."""
    package, *rest = kind.__module__.split(".")
    return package in PACKAGES and not any(each.startswith("_") for each in rest)


def _accepts_any(schema: Schema) -> bool:
    return schema.get("additionalProperties") is not False


@functools.cache
def _takes_others(kind: type) -> bool:
    """Return whether a class takes options that its constructors do not name."""
    constructors = [vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each) and each is not object]
    signatures = [inspect.signature(each).parameters.values() for each in constructors]
    passes = [any(p.kind is p.VAR_KEYWORD for p in parameters) for parameters in signatures]
    return bool(passes) and all(passes)


def _describe(kind: type) -> str:
    source = find_source(kind) if kind.__module__.startswith("lightning_xt.") else None
    return f"{kind.__name__}: {get_summary(kind)}" + (f" {source}" if source else "")
