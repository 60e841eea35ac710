"""info: describe a checkpoint."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import RUN, Arguments
from lightning_xt.system.messages import UserError

SUMMARY = "describe a checkpoint:  lightning-xt info RUN [--tree] [--json]"
DESCRIPTION = "Print what a checkpoint holds, without building its model."


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("--tree", action="store_true", help="also the model's stages: shapes, parameters, FLOPs")
    parser.add_argument("--seq_len", type=int, help="tokens in a row of the tree (default: those of the run's data)")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("info", DESCRIPTION, add_options).parse_args(args)
    if options.seq_len is not None and not options.tree:
        raise UserError(f"--seq_len {options.seq_len} is for the tree; add --tree")
    from lightning_xt.commands.models.checkpoint_facts import print_facts

    return print_facts(options.run, tree=options.tree, seq_len=options.seq_len, as_json=options.json)
