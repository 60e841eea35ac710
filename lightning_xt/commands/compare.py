"""compare: compare runs in a table and a plot."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = "compare runs in a table and a plot:  lightning-xt compare RUN... [--metric NAME] [--group] [--json]"
DESCRIPTION = """\
Print a table of runs, with the options in which their configs differ, and plot a metric against optimizer steps, bytes
and seconds of training.
"""
PLOT = "compare.png"


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="*",
        help="runs/NAME/N, runs/NAME (its newest run), a folder of names (the newest of each) or a .ckpt file in a run",
    )
    parser.add_argument(
        "--metric", help="the metric to compare (default: val/bits_per_byte, or else one that all runs have)"
    )
    parser.add_argument(
        "--group", action="store_true", help="join runs that differ in their seeds only: mean and range"
    )
    parser.add_argument("--output", help=f"the plot to write, .png, .svg or .pdf (default: {PLOT}; none with --json)")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object, curves included")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("compare", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.comparison.comparison_report import report

    return report(options, options.output or (None if options.json else PLOT))
