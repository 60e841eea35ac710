"""Windows in blocks against a mask of all pairs, and the conditions of blocks."""

import itertools
from functools import partial

import pytest
import torch
from catalogue import BUILDS, VOCAB, Build, attention, attention_layers, crop, decoder, example, randomise
from encoder_catalogue import encoder, source
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.keys_values import KeysValues
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.outline import outline
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.kernels import window_blocks
from lightning_xt.nn.attention.kernels.window_blocks import WindowBlocks, find_window_blocks
from lightning_xt.nn.normalizers.sink_softmax import SinkSoftmax
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.combined import Combined
from lightning_xt.nn.positions.dynamic_bias import DynamicBias
from lightning_xt.nn.positions.fire import FIRE
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.relative_bias import RelativeBias
from lightning_xt.nn.positions.relative_sinusoidal import RelativeSinusoidal
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.projections.latent import Latent

HEADS, WIDTH = 4, 6


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[WindowBlocks]:
    """Make blocks of one or two queries in rows of any length, and record them."""
    used: list[WindowBlocks] = []
    for name, value in {"LEAST": 1, "MOST": 2, "UNIT": 1, "SKIPPED": -100}.items():
        monkeypatch.setattr(window_blocks, name, value)
    attend = WindowBlocks.attend
    monkeypatch.setattr(WindowBlocks, "attend", lambda self, *args: used.append(self) or attend(self, *args))
    return used


def layer(causal: bool = True, **options: object) -> Attention:
    shape = LayerShape(dim=HEADS * WIDTH, causal=causal)
    return Attention(shape, heads=HEADS, **{"kv_heads": 2, "position": None, **options}).double()


def run(module: Attention, x: Tensor, inputs: Inputs, lengths: Tensor | None = None) -> Tensor:
    where = Where.from_sequence(x.shape[1], causal=module.shape.causal, inputs=inputs, lengths=lengths, device=x.device)
    return module(x, where, inputs, Trace(), None)[0]


def compare(
    module: Attention, n: int, inputs: Inputs, blocks: list[WindowBlocks], lengths: Tensor | None = None
) -> None:
    """Compare blocks with plain products: outputs and all gradients."""
    found = []
    x = torch.randn(2, n, HEADS * WIDTH, dtype=torch.float64, requires_grad=True)
    along = torch.randn_like(x)
    for backend in ("explicit", "fused"):
        module.backend = backend
        before = len(blocks)
        out = run(module, x, inputs, lengths)
        assert len(blocks) - before == (backend == "fused")
        found.append((out, *torch.autograd.grad(out, (x, *module.parameters()), along)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 2, 5, 8])
@torch.no_grad()
def test_each_query_gathers_from_its_window(causal: bool, window: int, blocks: list[WindowBlocks]) -> None:
    """Lengths around the window, and multiples of a block and others."""
    for n in range(window + 1, 2 * window + 5):
        module, x = layer(causal, window=window, backend="fused"), torch.randn(2, n, HEADS * WIDTH).double()
        q, k, v = module.projection.to_qkv(x).unflatten(-1, (-1, WIDTH)).transpose(1, 2).split((HEADS, 2, 2), dim=1)
        expected = torch.zeros_like(q)
        for h, i in itertools.product(range(HEADS), range(n)):
            seen = slice(max(0, i - window + 1), i + 1 if causal else i + window)
            scores = torch.einsum("bd,bjd->bj", q[:, h, i], k[:, h // 2, seen]) * WIDTH**-0.5
            expected[:, h, i] = torch.einsum("bj,bjd->bd", scores.softmax(-1), v[:, h // 2, seen])
        out = run(module, x, Inputs())
        torch.testing.assert_close(out, module.to_out(expected.transpose(1, 2).flatten(2)), rtol=1e-9, atol=1e-10)
        assert len(blocks) == 1 and blocks.pop().length == n


OPTIONS = {
    "rotary": {"position": Rotary},
    "one_kv_head": {"kv_heads": 1, "value_dim": 5},
    "memory": {"memory": 3},
    "sinks": {"normalizer": SinkSoftmax, "memory": 2},
    "alibi": {"position": ALiBi, "memory": 2},
    "forgetting": {"position": Forgetting},
    "relative_bias": {"position": RelativeBias},
    "dynamic_bias": {"position": DynamicBias},
    "fire": {"position": FIRE},
    "relative_sinusoidal": {"position": RelativeSinusoidal, "kv_heads": HEADS},
    "combined": {"position": partial(Combined, positions=[Rotary, Forgetting, ALiBi])},
    "latent": {"projection": Latent, "kv_heads": HEADS, "position": Rotary},
}
BOTH_WAYS = {name: each for name, each in OPTIONS.items() if name not in ("forgetting", "combined")}


@pytest.mark.parametrize("name", OPTIONS)
def test_causal_parts_agree_with_plain_products(name: str, blocks: list[WindowBlocks]) -> None:
    compare(layer(window=5, **OPTIONS[name]), 13, Inputs(), blocks)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_parts_that_look_both_ways_agree_with_plain_products(name: str, blocks: list[WindowBlocks]) -> None:
    compare(layer(False, window=3, **OPTIONS[name]), 13, Inputs(), blocks, torch.tensor([8, 13]))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", [None, ALiBi])
def test_inputs_that_hide_or_add_agree_with_plain_products(
    causal: bool, position: object, blocks: list[WindowBlocks]
) -> None:
    n, module = 11, layer(causal, window=3, position=position, memory=1)
    draw = partial(torch.randn, dtype=torch.float64)
    documents = torch.tensor([[0] * 4 + [1] * 7, [3] * 9 + [0] * 2])
    inputs = {
        "documents": documents,
        "hidden_tokens": draw(2, n) > 0,
        "mask": draw(2, n, n) > 0,
        "keys_values": [KeysValues(draw(2, 2, 2, WIDTH), draw(2, 2, 2, WIDTH), draw(2, 2) > 0)],
    }
    for name, value in inputs.items():
        compare(module, n, Inputs(**{name: value}), blocks)
    for rows, heads in itertools.product((1, 2), (1, HEADS)):
        compare(module, n, Inputs(bias=draw(rows, heads, n, n)), blocks)
    compare(module, n, Inputs(documents=documents, bias=draw(1, HEADS, n, n)), blocks, torch.tensor([11, 10]))


def test_dropout_drops_its_fraction_of_the_weights(blocks: list[WindowBlocks]) -> None:
    """A gathered value of ones is the sum of the weights that stay, whose mean is 1."""
    module = layer(window=2, dropout=0.25, backend="fused")
    with torch.no_grad():
        module.projection.to_qkv.weight[: (HEADS + 2) * WIDTH].zero_()
        module.to_out.weight.copy_(torch.eye(HEADS * WIDTH))
        module.projection.to_qkv.weight[(HEADS + 2) * WIDTH :].fill_(1 / (HEADS * WIDTH))
    out = run(module, torch.ones(500, 7, HEADS * WIDTH, dtype=torch.float64), Inputs())[:, 1:, ::WIDTH]
    counts = [(out - kept / 1.5).abs().lt(1e-9).double().mean().item() for kept in range(3)]
    assert counts == pytest.approx([1 / 16, 6 / 16, 9 / 16], abs=0.03) and len(blocks) == 1


WINDOWED = {
    name: build
    for name, build in BUILDS.items()
    if any(each.window is not None and "fused" in each.supported_backends for each in attention_layers(build()))
}


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in WINDOWED.items()])
@torch.no_grad()
def test_windowed_models_agree_with_plain_products(build: Build, blocks: list[WindowBlocks]) -> None:
    """Prefill too, and decoding after it."""
    model, (tokens, inputs) = randomise(build), example(2, 13)
    out = model(tokens, inputs=inputs)
    assert blocks
    cache = model.new_cache(2, 13, slack=2)
    pieces = [model(tokens[:, piece], inputs=crop(inputs, piece), cache=cache) for piece in (slice(0, 9), slice(9, 13))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), out, rtol=1e-9, atol=1e-10)
    for each in attention_layers(model):
        each.backend = "explicit"
    torch.testing.assert_close(model(tokens, inputs=inputs), out, rtol=1e-9, atol=1e-10)


def test_padding_alone_is_finite(blocks: list[WindowBlocks]) -> None:
    model = randomise(lambda: encoder(attention=attention(window=2)))
    tokens, mask = source(2, 11)
    hidden = model(tokens, mask)
    assert blocks and hidden.isfinite().all()
    hidden[mask].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# Conditions -----------------------------------------------------------------------------------------------------------


def where(n: int, window: int | None, causal: bool = True, **inputs: object) -> Where:
    made = Where.from_sequence(n, causal=causal, inputs=Inputs(**inputs), lengths=None, device=torch.device("cpu"))
    return made.limit_window(window)


@pytest.mark.parametrize(
    ("window", "causal", "size", "reach"),
    [
        (1, True, 64, 64),
        (64, True, 64, 128),
        (65, True, 64, 128),
        (66, True, 64, 192),
        (200, True, 112, 336),
        (256, True, 128, 384),
        (256, False, 128, 640),
        (1024, True, 256, 1280),
    ],
)
def test_blocks_are_half_a_window_within_bounds(window: int, causal: bool, size: int, reach: int) -> None:
    found = find_window_blocks(where(reach + 192, window, causal))
    assert found is not None and (found.size, found.reach) == (size, reach)
    assert find_window_blocks(where(reach + 191, window, causal)) is None


@pytest.mark.parametrize(
    "other",
    [
        lambda: where(13, None),
        lambda: where(13, 13),
        lambda: where(13, 3, positions=torch.arange(13).flip(0)[None]),
        lambda: where(13, 3, visible_prefix=torch.tensor([2])),
    ],
    ids=["no window", "short", "positions", "visible prefix"],
)
def test_others_have_a_mask_of_all_pairs(other: object, blocks: list[WindowBlocks]) -> None:
    assert find_window_blocks(where(13, 3)) is not None
    assert find_window_blocks(other()) is None


@torch.no_grad()
def test_decode_steps_have_no_blocks(blocks: list[WindowBlocks]) -> None:
    model = randomise(lambda: decoder(attention=attention(window=3)))
    cache = model.new_cache(2, 13)
    for count, steps in ((2, 7), (0, 1), (0, 4)):
        model(torch.randint(0, VOCAB, (2, steps)), cache=cache)
        assert len(blocks) == count
        blocks.clear()


def test_layers_share_a_mask_unless_it_is_biased(blocks: list[WindowBlocks], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Where] = []
    visible = Where.is_visible
    monkeypatch.setattr(Where, "is_visible", lambda self, *at: made.append(self) or visible(self, *at))
    for position in (Rotary, ALiBi):
        decoder(attention=attention(window=3, position=position))(torch.randint(0, VOCAB, (2, 13)))
    assert len(made) == 2 and len(blocks) == 4


def test_an_outline_counts_the_pairs_of_blocks() -> None:
    """A row of 6 blocks of 64 queries with 128 keys each, in place of 384 * 384 pairs; 4 operations a pair."""
    full, windowed = (outline(decoder(depth=1, attention=attention(window=w)), 384).flops for w in (None, 64))
    assert full - windowed == 4 * HEADS * WIDTH * (384 * 384 - 6 * 64 * 128)
