"""import: make a run of another library's model."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = "make a run of another library's model:  lightning-xt import FOLDER"
DESCRIPTION = """Make a run of a model that transformers has saved in a folder, in the shape of Llama, Qwen3, GPT-2,
Gemma 2, T5 or Marian. The run generates, serves, is measured and trains further like any other. Nothing of the folder
is executed."""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("folder", metavar="FOLDER", help="config.json, model.safetensors and the tokenizer")
    parser.add_argument("--name", help="name of the run (default: that of the folder)")
    parser.add_argument("--output", metavar="RUNS", default="runs", help="folder of the runs (runs)")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("import", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.commands.transfer.import_folder import import_folder

    return import_folder(options.folder, options.name, options.output)
