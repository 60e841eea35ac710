"""average: average the weights of a run's last checkpoints."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = "average the weights of a run's last checkpoints:  lightning-xt average RUN [--last N]"
DESCRIPTION = """Average the weights of the last checkpoints of a run, kept by fit --keep_checkpoints, into a checkpoint
for generate, validate and others."""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("run", metavar="RUN", help="runs/NAME/N, runs/NAME (its newest run) or a .ckpt file in one")
    parser.add_argument("--last", type=int, help="how many of the newest to average (default: all that are kept)")
    parser.add_argument("--output", help="the file to write (default: average.ckpt next to them)")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("average", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.models.averaging import write_average

    return write_average(options.run, options.last, options.output)
