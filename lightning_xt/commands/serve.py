"""serve: answer requests over HTTP."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = """serve models over HTTP, with a playground:  lightning-xt serve RUN [RUN2 ...]
clients of OpenAI's API work with it:  ... --port 8000"""
DESCRIPTION = """Serve the models of runs over HTTP: completions, conversations and translations in the form of OpenAI's
API, a playground at /, a description of all routes at /docs. Ctrl-C or SIGTERM finishes the answers that are being
written."""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="runs/NAME/N, runs/NAME or a .ckpt file; NAME=RUN gives it a name")
    add("--host", default="127.0.0.1", help="address to serve at; all but this machine's own need a key")
    add("--port", type=int, default=8000, help="port to serve at; 0 = a free one (default: 8000)")
    add("--rows", type=int, default=16, help="most sequences of a model decoded at once (default: 16)")
    add("--tokens", type=int, help="most tokens of a sequence, prompt and completion (default: by the model)")
    add("--prefill_tokens", type=int, default=512, help="most tokens of prompts between two steps (default: 512)")
    add("--max_waiting", type=int, default=256, help="most sequences of a model that wait for a row (default: 256)")
    add("--max_tokens", type=int, default=4096, help="most tokens of a completion (default: 4096)")
    add("--max_body_bytes", type=int, default=2**20, help="most bytes of a request (default: 1048576)")
    add("--timeout", type=float, default=600.0, help="most seconds from a request to its last token (default: 600)")
    add("--drain_timeout", type=float, default=30.0, help="most seconds to finish answers after SIGTERM (default: 30)")
    add("--api_key", help="key that clients must send (default: the environment variable LIGHTNING_XT_API_KEY)")
    add("--no_api_key", action="store_true", help="let everyone who reaches the address use the models")
    add("--weights", choices=["float32", "bfloat16", "int8", "int4"], help="form of the weights, as in generate")
    add("--group_size", help="numbers of a matrix row that share a scale in int8 and int4, or row, as in generate")
    add("--compile", action="store_true", help="compile decode steps, which takes up to minutes")
    add(
        "--chat_template",
        default="turns",
        help="text of conversations: turns, chatml, alpaca, plain, or a YAML or JSON file",
    )


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("serve", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.serving.serve_options import check_options, require_extra

    require_extra()
    checked = check_options(options)
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.commands.serving.model_server import serve

    return serve(checked)
