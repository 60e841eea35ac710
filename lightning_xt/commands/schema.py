"""schema: print the JSON Schema of a config."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = "print the JSON Schema of a config, for editors:  lightning-xt schema --output FILE"
DESCRIPTION = """\
Print the JSON Schema of a config: every option with its type, its default and its description, and every class that a
slot takes. Editors complete and check a YAML file that begins with the line

  # yaml-language-server: $schema=FILE
"""
COMMANDS = ("fit", "validate", "test", "predict", "generate")
"""Commands that read configs."""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--output", metavar="FILE", help="the file to write (default: standard output)")
    parser.add_argument("--command", choices=COMMANDS, default="fit", help="the command that reads the config (fit)")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("schema", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.commands.schemas.schema_output import write_schema

    return write_schema(options.command, options.output)
