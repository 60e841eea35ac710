"""Options and classes in the schema of a config, by the paths of a command line."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]


class SchemaOption(NamedTuple):
    """Option that a schema describes.

    Args:
        text: its description.
        values: values that it takes, with descriptions: classes, and members of an enumeration.
        options: the schemas of the options within it, by name.
        is_value: False for a section, which only holds others.
    """

    text: str
    values: dict[str, str]
    options: dict[str, Schema]
    is_value: bool


class SchemaOptions:
    """Options of a schema.

    Args:
        schema: of a config.
        classes: names of the classes that stand in slots, by path.
    """

    def __init__(self, schema: Schema, classes: Mapping[str, str]) -> None:
        self._schema, self._classes = schema, classes

    def find(self, path: str) -> SchemaOption | None:
        """Return the option of a path, "" for all of a config; None if there is none."""
        option = self._read("", self._schema)
        walked: list[str] = []
        for name in path.split(".") if path else ():
            if name in ("init_args", "class_path") or name not in option.options:
                return None
            walked.append(name)
            option = self._read(".".join(walked), option.options[name])
        return option

    def read(self, path: str, name: str, parent: SchemaOption) -> SchemaOption:
        """Return an option within another one."""
        return self._read(f"{path}.{name}".lstrip("."), parent.options[name])

    def _read(self, path: str, schema: Schema) -> SchemaOption:
        values: dict[str, str] = {}
        options: dict[str, Schema] = {}
        is_value = False
        for each in self._alternatives(schema):
            if "allOf" in each:
                is_value = True
                chosen = self._classes.get(path) or str(schema.get("default"))
                options |= self._find_class_options(each, chosen)
            elif "properties" in each:
                options |= each["properties"]
            else:
                is_value = True
                values |= {_to_text(value): self._describe_class(value) for value in each.get("enum", ())}
                types = each.get("type", ())
                for kind, words in (("boolean", ("true", "false")), ("null", ("null",))):
                    values |= dict.fromkeys(words, "") if kind in types else {}
        options = {
            name: each for name, each in options.items() if name not in ("class_path", "init_args", "dict_kwargs")
        }
        return SchemaOption(str(schema.get("description", "")), values, options, is_value)

    def _alternatives(self, schema: Schema) -> Iterator[Schema]:
        """Yield the schemas of which a value keeps one, with references resolved."""
        reference = schema.get("$ref")
        if reference is not None:
            yield from self._alternatives(self._schema["definitions"][reference.rpartition("/")[2]])
        elif "anyOf" in schema:
            for each in schema["anyOf"]:
                yield from self._alternatives(each)
        else:
            yield schema

    def _find_class_options(self, schema: Schema, name: str) -> dict[str, Schema]:
        """Return the options of a class in a slot; those of all classes of its family if it is unknown."""
        for rule in schema["allOf"]:
            pattern = rule["if"].get("properties", {}).get("class_path", {}).get("pattern")
            if pattern is not None and re.search(pattern, name):
                (found,) = self._alternatives(rule["then"]["properties"]["init_args"])
                return dict(found["properties"])
        return dict(schema["properties"])

    def _describe_class(self, name: Any) -> str:
        about = self._schema["definitions"].get(f"{name}.options", {}).get("description", "")
        return str(about).removeprefix(f"{name}: ")


def _to_text(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if value in (None, True, False)
        else str(value)
    )
