"""generate: continues or translates a prompt with the checkpoint of a run, and nothing else."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

import lightning_xt
from lightning_xt.commands.arguments import RUN, Arguments
from lightning_xt.commands.checkpoints import step_of
from lightning_xt.core.discovery import import_submodules
from lightning_xt.messages import UserError
from lightning_xt.training.checkpoint_file import OWN, read_checkpoint
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import Module, module_class
from lightning_xt.training.runs import checkpoint_of
from lightning_xt.training.sampling import Sampling


def generate(args: Sequence[str]) -> int:
    """Runs the command; see `cli.main`."""
    options = _parser().parse_args(list(args))
    sampling = Sampling(**{name: value for name, value in vars(options).items() if name not in ("run", "prompt")})
    import_submodules(lightning_xt)
    model = load(options.run)
    try:
        for piece in model.streamed(options.prompt, sampling):
            _show(piece)
        _show("\n")
    except BrokenPipeError:
        # Whoever read has enough; Python would flush once more at the end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def load(run: str) -> Module:
    """The module of a RUN, on the fastest device there is, from its checkpoint alone.

    Raises:
        UserError: it is no run, or its checkpoint is of no module of ours.
        ValueError: the file cannot be read.
    """
    try:
        checkpoint = checkpoint_of(run)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    step_of(checkpoint)
    kind = (read_checkpoint(checkpoint).get(OWN) or {}).get("kind")
    # What was saved before checkpoints told their kind was a language model.
    found = module_class(kind) or LanguageModel
    try:
        model = found.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint} cannot be read as a checkpoint of a {found.__name__}: {reason}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def _parser() -> Arguments:
    parser = Arguments(
        "generate", "Continues a prompt, or translates it with an encoder-decoder; the text appears as it is produced."
    )

    def add(name: str, kind: Any, default: Any, text: str, told: str = "") -> None:
        parser.add_argument(name, type=kind, default=default, help=f"{text} (default: {told or default})")

    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("--prompt", default="", help="the text to continue or to translate")
    add("--length", int, None, "most tokens to produce", "256; of a translation twice those of the source and 32")
    always = "divides the logits, before the filters; 0 always takes the likeliest token"
    add("--temperature", float, None, always, "1; of a translation 0")
    add("--top_k", int, None, "draw from so many likeliest tokens")
    add("--top_p", float, None, "draw from the likeliest tokens that together have this probability")
    add("--min_p", float, None, "draw from tokens at least this share as likely as the likeliest")
    add("--seed", int, 0, "where the random numbers start")
    return parser


def _show(text: str) -> None:
    # A terminal that cannot show a character shows its code; bytes of the prompt pass through as they came.
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "") == "utf8":
        sys.stdout.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    else:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
