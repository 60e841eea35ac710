"""variants: list the classes of every family, or describe one."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = "list what a model is composed of:  lightning-xt variants [NAME [OTHER]] [--json]"
DESCRIPTION = """\
List every family and its variants: parts of a network, objectives, filters and decoding methods. With the name of a
variant, print its options, its overlay and the classes that it cannot be combined with. With the names of two, print
whether they work together, or the reason why not.
"""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a variant, such as ALiBi, or a family, such as position"
    )
    parser.add_argument("other", metavar="OTHER", nargs="?", help="a second variant, next to the first in one model")
    parser.add_argument("--json", action="store_true", help="the same as JSON: a list of objects, or one object")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("variants", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.catalogue.variant_list import print_family, print_variants

    if options.other is not None:
        from lightning_xt.commands.catalogue.pair_verdicts import print_pair

        return print_pair(options.name, options.other, as_json=options.json)
    return print_variants(as_json=options.json) if options.name is None else print_family(options.name, options.json)
