"""lr: suggest a learning rate."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments
from lightning_xt.system.messages import UserError

SUMMARY = "suggest a learning rate:  lightning-xt lr -c language/quickstart.yaml [--plot lr.png] [--json]"
DESCRIPTION = """Suggest a learning rate: train some steps with a rate that rises from --lowest to --highest, and see
where the loss falls. Other options are those of fit. Nothing is saved besides --plot."""

REST = "fit"
"""Command whose options are taken too."""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--lowest", type=float, default=1e-6, help="rate of the first step (default: 1e-6)")
    parser.add_argument("--highest", type=float, default=1.0, help="rate of the last step (default: 1)")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps (default: 100)")
    parser.add_argument("--plot", help="a file to draw the losses into, such as lr.png or lr.svg")
    parser.add_argument("--json", action="store_true", help="one JSON object with every step")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options, rest = Arguments("lr", DESCRIPTION, add_options).parse_known_args(args)
    if not rest:
        raise UserError("lr needs a config, such as -c language/quickstart.yaml")
    from lightning_xt.commands.trainer.rate_search import search_rate

    return search_rate(options, rest)
