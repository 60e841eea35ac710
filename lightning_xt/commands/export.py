"""export: write a model for another library or program."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import RUN, Arguments
from lightning_xt.system.messages import UserError

SUMMARY = "write a model for other libraries:  lightning-xt export RUN --format hf"
DESCRIPTION = """Write the model of a run in the format of another library or program, read it back there, and compare
logits and greedy tokens. Without --format, list the formats and whether the model fits each."""
TYPES = ("float32", "bfloat16", "float16")


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("--format", help="the format (default: list them)")
    parser.add_argument("--output", metavar="FOLDER", help="the folder to write (default: export/FORMAT of the run)")
    parser.add_argument("--dtype", choices=TYPES, default="float32", help="type of the written weights (float32)")
    parser.add_argument("--tokens", type=int, help="most tokens of a sequence (default: those of training)")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("export", DESCRIPTION, add_options).parse_args(args)
    if options.tokens is not None and options.tokens < 1:
        raise UserError(f"--tokens is {options.tokens}; it must be at least 1 token")
    from lightning_xt.commands.models.import_lightning import import_variants

    import_variants()
    from lightning_xt.commands.transfer.export_run import export_run

    return export_run(options.run, options.format, options.output, options.dtype, options.tokens)
