"""init: write a commented config and a folder for your own data."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from shlex import join

from lightning_xt.commands.options.arguments import Arguments
from lightning_xt.system.messages import UserError

SUMMARY = "write a config and a folder for your own data:  lightning-xt init [FOLDER] [--translation] [--path DATA]"
DESCRIPTION = """\
Write FOLDER/config.yaml, a commented config of a small model that is sized by the data: a language model, or a
translator. The data are your own with --path, else those in FOLDER/data, else a sample that is written there, to be
replaced. Nothing is overwritten.
"""
NAMES_CLASSES = False


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="the folder to write (my-text or my-translation)")
    parser.add_argument("--translation", action="store_true", help="a translator, instead of a language model")
    parser.add_argument(
        "--path", help="your text: a file, a folder or a pattern; of a translator the sources, or a .tsv file"
    )
    parser.add_argument("--target_path", help="the targets of a translator, line by line")
    parser.add_argument("--field", help="the field with the text, in JSON lines")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    parser = Arguments("init", DESCRIPTION, add_options)
    options, rest = parser.parse_known_args(args)
    if any(each.startswith("-") for each in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        raise UserError(f"init: {join(rest)} after the folder {options.folder}; give data with {_offer(options, rest)}")
    from lightning_xt.commands.starter.starter_project import write_project

    return write_project(
        options.folder, translation=options.translation, path=options.path, target_path=options.target_path,
        field=options.field,
    )  # fmt: skip


def _offer(options: Namespace, words: Sequence[str]) -> str:
    """Return the options that surplus words most likely belong to."""
    names = [] if options.path is not None else ["--path"]
    if options.translation and options.target_path is None:
        names.append("--target_path")
    if not 0 < len(words) <= len(names):
        return "--path: a file, a folder or a pattern in quotes"
    return join(part for pair in zip(names, words, strict=False) for part in pair)
