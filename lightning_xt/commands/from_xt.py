"""from-xt: print the config of an architecture of x-transformers."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = 'print the config of an x-transformers model:  lightning-xt from-xt "TransformerWrapper(...)"'
DESCRIPTION = """\
Print the config of a model that is written for x-transformers 2.31.10: a TransformerWrapper or an XTransformer, in an
AutoregressiveWrapper or not. The text is parsed, never executed. Comments and lines on standard error name what has no
counterpart, and what differs.

  lightning-xt from-xt "TransformerWrapper(num_tokens=256, max_seq_len=99, attn_layers=Decoder(dim=96, depth=4))" > FILE
  lightning-xt fit -c configs/language/quickstart.yaml -c FILE
"""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("text", metavar="TEXT", help="the call of the model, a file with it, or - for standard input")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("from-xt", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.x_transformers.call_text import read_call_text
    from lightning_xt.commands.x_transformers.config_text import print_config

    return print_config(read_call_text(options.text, "from-xt"))
