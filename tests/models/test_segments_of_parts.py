"""Every part of the catalogue in every kind of segments: rows, segments one after the other, and caches agree."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from catalogue import RECIPES, VOCAB, crop, decoder, example, list_variants, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.segments.base import Segments
from lightning_xt.nn.segments.memory_tokens import MemoryTokens

LENGTH, MEMORY, N = 4, 3, 13
READS_IDS = ("value_mods=ValueEmbedding", "feedforward=DeepEmbed")
NAMES: dict[str, list[str]] = {}
for name in RECIPES:
    if "segments" not in RECIPES[name]:
        NAMES.setdefault(name.partition("=")[0] if "=" in name else "cases", []).append(name)


def build(kind: type, name: str) -> Decoder | None:
    """Build a decoder; None if it reads ids that memory tokens do not have, which is refused."""

    def make() -> Decoder:
        return decoder(**RECIPES[name], segments=partial(kind, length=LENGTH, memory=MEMORY))

    if kind is MemoryTokens and name in READS_IDS:
        with pytest.raises(ValueError, match=r"^segments: MemoryTokens adds tokens without ids, but \w+ reads ids"):
            make()
        return None
    return randomise(make)


def read_one_after_the_other(model: Decoder, tokens: Tensor, inputs: Inputs) -> Tensor:
    found, memories = [], None
    for start in range(0, N, LENGTH):
        piece = slice(start, start + LENGTH)
        logits, trace = model(tokens[:, piece], inputs=replace(crop(inputs, piece), memories=memories), trace=Trace())
        found, memories = [*found, logits], trace.memories
    return torch.cat(found, dim=1)


def decode_pieces(model: Decoder, tokens: Tensor, inputs: Inputs) -> Tensor:
    found, start, cache = [], 0, model.new_cache(2, N, slack=2)
    for size in (5, 1, 1, 2, 1, 3):
        piece = slice(start, start + size)
        found.append(model(tokens[:, piece], inputs=crop(inputs, piece), cache=cache))
        start += size
    return torch.cat(found, dim=1)


def check_ragged_rows(model: Decoder, tokens: Tensor, inputs: Inputs, expected: Tensor) -> None:
    """Rows of 7 and 2 tokens, which reach the ends of their segments at different steps."""
    lengths, cache = [7, 2], model.new_cache(2, N, slack=2)
    found = model(
        tokens[:, :7], lengths=torch.tensor(lengths), inputs=crop(inputs, slice(0, 7)), cache=cache, last_only=True
    )
    for step in range(6):
        at = [length + step for length in lengths]
        for row, t in enumerate(at):
            torch.testing.assert_close(found[row, -1], expected[row, t - 1], rtol=1e-9, atol=1e-10)
        token, types = (
            torch.stack([each[row, t] for row, t in enumerate(at)])[:, None] for each in (tokens, inputs.types)
        )
        found = model(token, inputs=replace(inputs, types=types), cache=cache)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list_variants(Segments), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("family", NAMES)
def test_every_part_reads_rows_as_their_segments_and_decodes_them(family: str, kind: type) -> None:
    for model in (build(kind, name) for name in NAMES[family]):
        if model is None:
            continue
        tokens, inputs = example(2, N)
        with torch.no_grad():
            expected = model(tokens, inputs=inputs)
            for found in (read_one_after_the_other, decode_pieces):
                torch.testing.assert_close(found(model, tokens, inputs), expected, rtol=1e-9, atol=1e-10)
            check_ragged_rows(model, tokens, inputs, expected)
            later = torch.arange(N) >= 9
            changed = model(torch.where(later, (tokens + 1) % VOCAB, tokens), inputs=inputs)
            torch.testing.assert_close(changed[:, :9], expected[:, :9], rtol=1e-9, atol=1e-10)
        model.train()(tokens, inputs=inputs).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
