"""tokenizer: train a tokenizer."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = "train a tokenizer on text:  lightning-xt tokenizer train --path FILES [--vocab_size 8192]"
DESCRIPTION = """\
Train a byte-level byte-pair encoding on text, by the tokenizers library, and write it as a tokenizer.json, for the
option --data.tokenizer.file of fit. The text is read as by --data TextFiles, and not held in memory.
"""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("action", metavar="train", choices=["train"], help="what to do: train")
    parser.add_argument("--path", required=True, help="a file, a folder or a quoted pattern, such as 'corpus/**/*.txt'")
    parser.add_argument("--vocab_size", type=int, default=8192, help="number of ids, at least 259 (default: 8192)")
    parser.add_argument("--field", help="the string field to read, if all files are JSON lines")
    parser.add_argument("--output", default="tokenizer.json", help="the file to write (default: tokenizer.json)")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("tokenizer", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.tokenizers.tokenizer_training import train_tokenizer

    return train_tokenizer(options.path, options.vocab_size, options.field, options.output, as_json=options.json)
