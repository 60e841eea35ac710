"""Contents of the table of all commands, options and classes."""

import argparse
import inspect
from types import ModuleType
from typing import Any

from lightning_xt.commands.models.import_lightning import import_variants
from lightning_xt.commands.options.command_modules import find_commands, import_command
from lightning_xt.commands.trainer import run_trainer


def build_table() -> dict[str, Any]:
    """Return the commands with their options, and the schemas of those that read configs."""
    import_variants()
    from lightning_xt.commands.catalogue.families import ROOMS, find_families, list_members
    from lightning_xt.commands.schemas.config_schema import build_schema
    from lightning_xt.system.docstrings import get_summary

    families = find_families(*ROOMS)
    return {
        "commands": {name: describe_command(name, import_command(name)) for name in find_commands()},
        "variants": {each.__name__: get_summary(each) for base in families.values() for each in list_members(base)},
        "schemas": {name: build_schema(name) for name in ("fit", "generate")},
    }


def describe_command(name: str, module: ModuleType) -> dict[str, Any]:
    """Return the summary of a command and its options, or the name of the schema that has them."""
    from lightning_xt.commands.trainer.decoding_options import list_unused

    found: dict[str, Any] = {"summary": module.SUMMARY.partition("\n")[0].partition(":  ")[0]}
    if module.add_options is run_trainer.add_options:
        extra = ["--help", "--help_all", "--print_config", *(["--resume"] if name == "fit" else [])]
        return found | {"schema": "fit", "unused": list_unused(name), "flags": extra}
    if name == "generate":
        return found | {"schema": "generate", "unused": ["run"], "flags": ["--help"]}
    parser = argparse.ArgumentParser()
    module.add_options(parser)
    found |= describe_parser(parser)
    if rest := getattr(module, "REST", None):
        found |= {"schema": rest, "unused": list_unused(rest), "flags": [], "arguments": []}
    return found


def describe_parser(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the arguments, options and sub-commands of a parser."""
    found: dict[str, Any] = {"arguments": [], "options": {}, "commands": {}}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found["commands"] = {name: describe_parser(each) for name, each in action.choices.items()}
        elif action.help != argparse.SUPPRESS:
            described = {
                "text": inspect.cleandoc(action.help or "").partition("\n")[0],
                "values": [str(each) for each in action.choices or ()],
                "metavar": str(action.metavar or ""),
                "flag": action.nargs == 0,
            }
            if action.option_strings:
                found["options"] |= dict.fromkeys(action.option_strings, described)
            else:
                found["arguments"].append(described)
    return found
