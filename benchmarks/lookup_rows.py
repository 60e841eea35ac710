"""Prompt lookup against plain decoding, on texts that repeat themselves much, as code does, and not at all."""

import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import interleave, row
from torch import Tensor

from lightning_xt import generate
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.history import History
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.protocol import Autoregressive

PROMPT = 512


class Dictation(Filter):
    """Filter that permits only the next token of a text, so that an untrained model writes it."""

    def __init__(self, text: Tensor) -> None:
        self.text = text

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        token = self.text[history.lengths]
        return torch.full_like(logits, float("-inf")).scatter(1, token[:, None], 0.0)


def make_texts(repeating: Tensor, new: int) -> dict[str, Tensor]:
    """Return bytes: a text that repeats itself, a module of the standard library, and random ones."""
    module = Path(sysconfig.get_path("stdlib"), "argparse.py").read_bytes()[8000 : 8000 + PROMPT + new]
    code = torch.tensor(list(module))
    times = -(-(PROMPT + new) // len(repeating))
    return {
        "repeating": repeating.repeat(times)[: PROMPT + new].cpu(),
        "code": code,
        "random": torch.randint(0, 256, code.shape),
    }


def compare_lookup(models: dict[str, Autoregressive], repeating: Tensor, new: int, repeats: int) -> dict[str, Any]:
    """Return the speed-up of each format of weights on each text; both legs write the same text."""
    found = {}
    for name, text in make_texts(repeating, new).items():
        for weights, model in models.items():
            lookup = PromptLookup()
            legs = {"ours": partial(write, model, text, lookup), "theirs": partial(write, model, text, None)}
            # The first verified draft compiles a program.
            assert torch.equal(legs["ours"](), legs["theirs"]())
            seconds = interleave(legs, repeats)
            found[f"{weights} {name}"] = row(seconds["ours"], seconds["theirs"]) | {
                "accepted": lookup.accepted,
                "proposed": lookup.proposed,
            }
    return found


def write(model: Autoregressive, text: Tensor, lookup: PromptLookup | None) -> Tensor:
    """Write a text after its first tokens."""
    dictation = [Dictation(text)]
    return generate(model, text[None, :PROMPT], len(text) - PROMPT, temperature=0, filters=dictation, method=lookup)
