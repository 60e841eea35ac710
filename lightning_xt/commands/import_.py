"""import: make a run of another library's model."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments
from lightning_xt.commands.options.run_names import check_name
from lightning_xt.system.messages import UserError

SUMMARY = "make a run of another library's model:  lightning-xt import FOLDER"
DESCRIPTION = """\
Make a run of a model that transformers has saved in a folder, in the shape of Llama, Qwen3, GPT-2, Gemma 2, T5 or
Marian. The run generates, serves, is measured and trains further like any other. Nothing of the folder is executed.

  lightning-xt import FOLDER --name NAME

With --base RUN, FOLDER is an adapter that PEFT has saved, and the run has the model of RUN with it.

Weights of x-transformers 2.31.10 are one file, safetensors or torch.save(model.state_dict(), FILE), and need the call
that builds their model: a text, a file with it, or - for standard input. It is parsed, never executed. A model that
computes something else here is refused by name; from-xt prints the closest config.

  lightning-xt import FILE --call "TransformerWrapper(num_tokens=256, attn_layers=Decoder(dim=96, depth=4), ...)"
"""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("source", metavar="FOLDER", help="config.json, model.safetensors and the tokenizer; or weights")
    parser.add_argument("--base", metavar="RUN", help="the run that an adapter of PEFT changes")
    parser.add_argument("--call", metavar="TEXT", help="the call of an x-transformers model, whose weights are given")
    parser.add_argument("--name", help="name of the run (default: that of the folder or file)")
    parser.add_argument("--output", metavar="RUNS", default="runs", help="folder of the runs (runs)")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("import", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.models.import_lightning import import_variants

    import_variants()
    if options.name is not None:
        check_name(options.name, "--output")
    if options.call is not None and options.base is not None:
        raise UserError("--call is for weights of x-transformers and --base for an adapter of PEFT; give one")
    if options.base is not None:
        from lightning_xt.commands.transfer.import_adapter import import_adapter

        return import_adapter(options.source, options.base, options.name, options.output)
    if options.call is not None:
        from lightning_xt.commands.transfer.import_weights import import_weights

        return import_weights(options.source, options.call, options.name, options.output)
    from lightning_xt.commands.transfer.import_folder import import_folder

    return import_folder(options.source, options.name, options.output)
