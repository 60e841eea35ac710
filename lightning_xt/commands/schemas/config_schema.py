"""JSON Schema of the config of a command."""

from typing import Any

from jsonargparse import ArgumentParser

import lightning_xt
from lightning_xt.commands.generation.generate_options import add_generate_options
from lightning_xt.commands.models.import_lightning import import_variants
from lightning_xt.commands.options.help_text import describe_action
from lightning_xt.commands.schemas.class_definitions import ClassDefinitions, describe_option
from lightning_xt.commands.schemas.option_types import Schema
from lightning_xt.commands.trainer.command_line import CommandLine
from lightning_xt.training.config_parser import ConfigParser

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The draft that editors know best."""
NOT_IN_CONFIGS = ("help", "config", "print_config")


def build_schema(command: str) -> Schema:
    """Return the schema of the config of a command: fit, validate, test, predict or generate."""
    import_variants()
    classes = ClassDefinitions()
    properties: dict[str, Schema] = {}
    sections: dict[str, dict[str, Schema]] = {}
    for action in build_parser(command)._actions:
        section, _, name = action.dest.rpartition(".")
        if name in NOT_IN_CONFIGS or type(action).__name__ == "_ActionConfigLoad":
            continue
        place = sections.setdefault(section, {}) if section else properties
        place |= describe_option(name, _describe_values(action, classes), describe_action(action).text, action.default)
    for section, options in sections.items():
        properties[section] = {
            "description": f"options of {section}",
            "type": "object",
            "properties": options,
            "additionalProperties": False,
        }
    heads = "|".join(properties)
    return {
        "$schema": DRAFT,
        "title": f"config of lightning-xt {command}",
        "description": f"written by lightning-xt {lightning_xt.__version__}",
        "type": "object",
        "properties": properties,
        # Options with dots, as on the command line.
        "patternProperties": {rf"^({heads})\.[\w.]+\+?$": {}},
        "additionalProperties": False,
        "definitions": classes.collect(),
    }


def build_parser(command: str) -> ArgumentParser:
    """Build the parser of a command, and parse nothing."""
    if command == "generate":
        parser = ConfigParser(prog="lightning-xt generate", exit_on_error=False)
        add_generate_options(parser)
        return parser
    try:
        _ParserOnly(command, [])
    except _Built as built:
        return built.parser
    raise AssertionError("the parser is parsed with")


class _Built(BaseException):
    """Ends the construction of a command line, whose parser is complete."""

    def __init__(self, parser: ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


class _ParserOnly(CommandLine):
    """CommandLine that parses nothing."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _Built(self._parser(self._command))


def _describe_values(action: Any, classes: ClassDefinitions) -> Schema:
    """Return the schema of the values of an option."""
    hint = getattr(action, "_typehint", None)
    if hint is not None:
        return classes.describe_type(hint)
    if type(action).__name__ == "_AppendAction":
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    return {"enum": list(action.choices)} if action.choices else {}
