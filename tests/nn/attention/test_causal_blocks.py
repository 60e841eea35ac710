"""Causal attention in blocks against the whole triangle at once, and its conditions."""

import copy

import pytest
import torch
from catalogue import VOCAB, attention, decoder
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.outline import outline
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.kernels import fused
from lightning_xt.nn.attention.kernels.causal_blocks import BLOCKS, LEAST, LONGEST, attend_causal_blocks
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.projections.latent import Latent

HEADS, KV_HEADS, DIM_HEAD, DIM_VALUE, SCALE = 4, 2, 6, 5, 0.3
LENGTHS = pytest.mark.parametrize("n", [1, LEAST - 1, LEAST, LEAST + 1, 2 * LEAST + 2, BLOCKS * LEAST + 88])


def make_qkv(n: int, rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    sizes = ((HEADS, DIM_HEAD), (KV_HEADS, DIM_HEAD), (KV_HEADS, DIM_VALUE))
    q, k, v = (torch.randn(rows, heads, n, dim, dtype=torch.float64, requires_grad=True) for heads, dim in sizes)
    return q, k, v


def triangle_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return the weights of all pairs, 0 for later tokens."""
    k = torch.stack([k[:, h // (HEADS // KV_HEADS)] for h in range(HEADS)], dim=1)
    powers = (SCALE * torch.einsum("bhid,bhjd->bhij", q, k)).exp().tril()
    return powers / powers.sum(dim=-1, keepdim=True)


def gather(weights: Tensor, v: Tensor) -> Tensor:
    v = torch.stack([v[:, h // (HEADS // KV_HEADS)] for h in range(HEADS)], dim=1)
    return torch.einsum("bhij,bhje->bhie", weights, v)


@LENGTHS
def test_blocks_compute_the_whole_triangle(n: int) -> None:
    """The weights are made in float32: float64 distinguishes the formula from its rounding, here 1e-7 of it."""
    q, k, v = make_qkv(n)
    out, expected = attend_causal_blocks(q, k, v, SCALE), gather(triangle_weights(q, k), v)
    assert out.shape == (2, HEADS, n, DIM_VALUE) and out.dtype == torch.float64
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    along = torch.randn_like(out)
    for mine, whole in zip(*(torch.autograd.grad(each, (q, k, v), along) for each in (out, expected)), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-5)


@LENGTHS
def test_blocks_let_nothing_through_from_the_future(n: int) -> None:
    """Later keys and values, however large, change no bit of earlier results."""
    q, k, v = (t.detach() for t in make_qkv(n))
    for t in {0, n // 2, min(n, LEAST) - 1, n - 1}:
        later_k, later_v = k.clone(), v.clone()
        later_k[:, :, t + 1 :], later_v[:, :, t + 1 :] = 1e9, -1e9
        out, other = (attend_causal_blocks(q, keys, values, SCALE) for keys, values in ((k, v), (later_k, later_v)))
        assert torch.equal(out[:, :, : t + 1], other[:, :, : t + 1])


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_drops_its_fraction_of_the_weights(dropout: float) -> None:
    """One-hot values show each weight: it is scaled up, or 0."""
    n = LEAST + 6
    q, k, _ = (t.detach() for t in make_qkv(n, rows=20))
    v = torch.eye(n, dtype=torch.float64).expand(20, KV_HEADS, -1, -1)
    shown, whole = attend_causal_blocks(q, k, v, SCALE, dropout), triangle_weights(q, k)
    kept = shown > 0
    torch.testing.assert_close(shown[kept], whole[kept] / (1 - dropout), rtol=1e-5, atol=1e-7)
    share = 1 - kept.sum().item() / (whole > 0).sum().item()
    assert share == pytest.approx(dropout, abs=0.005)


# Conditions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Record the shapes of queries that were computed in blocks."""
    shapes: list[torch.Size] = []

    def watch(q: Tensor, *others: object) -> Tensor:
        shapes.append(q.shape)
        return attend_causal_blocks(q, *others)

    monkeypatch.setattr(fused, "attend_causal_blocks", watch)
    return shapes


def layer(**options: object) -> Attention:
    return Attention(LayerShape(dim=48), **{"heads": HEADS, "kv_heads": KV_HEADS, **options})


def run(layer: nn.Module, x: Tensor) -> Tensor:
    where = Where.from_sequence(x.shape[1], causal=True, inputs=Inputs(), lengths=None, device=x.device)
    out, _ = layer(x, where, Inputs(), Trace(), None)
    return out


@LENGTHS
@pytest.mark.parametrize("options", [{}, {"qk_norm": RMSNorm}, {"projection": Latent, "kv_heads": HEADS}], ids=str)
def test_a_bfloat16_layer_agrees_with_its_float32_twin(
    n: int, options: dict[str, object], in_blocks: list[torch.Size]
) -> None:
    half = layer(**options).bfloat16()
    twin = copy.deepcopy(half).float()
    x = torch.randn(2, n, 48).bfloat16().requires_grad_()
    like = x.detach().float().requires_grad_()
    expected = run(twin, like)
    assert in_blocks == []
    out = run(half, x)
    assert in_blocks == [(2, HEADS, n, out_dim(half))]
    along = torch.randn_like(out)
    out.backward(along)
    expected.backward(along.float())
    pairs = [(out, expected), (x.grad, like.grad)]
    pairs += [(mine.grad, theirs.grad) for mine, theirs in zip(half.parameters(), twin.parameters(), strict=True)]
    for mine, theirs in pairs:
        # Relative to the largest: a sum rounds in proportion to its terms, not to its result.
        error = (mine.float() - theirs).abs().max()
        assert error <= 0.02 * theirs.abs().max() + 1e-6


def out_dim(layer: Attention) -> int:
    """Return the width of one head's queries."""
    return layer.shape.dim_head + (layer.projection.rotated_dim if isinstance(layer.projection, Latent) else 0)


@pytest.mark.parametrize(("training", "share"), [(True, 0.5), (False, 0.0)])
@torch.no_grad()
def test_a_layer_drops_weights_in_training_only(training: bool, share: float, in_blocks: list[torch.Size]) -> None:
    """The first token sees only itself, so its one weight is dropped or doubled."""
    dropping = layer(heads=1, kv_heads=1, position=None, dropout=0.5).bfloat16().train(training)
    first = run(dropping, torch.randn(1, 2, 48).bfloat16().expand(1000, -1, -1))[:, 0]
    assert len(in_blocks) == 1
    assert (first == 0).all(-1).float().mean().item() == pytest.approx(share, abs=0.1 * (share > 0))


@pytest.mark.parametrize(
    ("options", "n", "dtype", "calls"),
    [
        ({}, 7, torch.bfloat16, 1),
        ({}, LONGEST, torch.bfloat16, 1),
        ({}, LONGEST + 1, torch.bfloat16, 0),
        ({}, 7, torch.float32, 0),
        ({"window": 3}, 7, torch.bfloat16, 0),
        ({"window": 7}, 7, torch.bfloat16, 1),
        ({"position": ALiBi}, 7, torch.bfloat16, 0),
        ({"memory": 2}, 7, torch.bfloat16, 1),
        ({"backend": "explicit"}, 7, torch.bfloat16, 0),
    ],
    ids=str,
)
@torch.no_grad()
def test_blocks_are_for_plain_triangles_in_bfloat16(
    options: dict[str, object], n: int, dtype: torch.dtype, calls: int, in_blocks: list[torch.Size]
) -> None:
    run(layer(**options).to(dtype), torch.randn(1, n, 48, dtype=dtype))
    assert len(in_blocks) == calls


@torch.no_grad()
def test_not_where_the_flash_kernel_is_turned_off(in_blocks: list[torch.Size]) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        run(layer().bfloat16(), torch.randn(1, 7, 48).bfloat16())
    assert in_blocks == []


def test_an_outline_counts_the_pairs_that_blocks_skip() -> None:
    single = decoder(attention=attention())
    assert outline(copy.deepcopy(single).bfloat16(), 2 * LEAST) == outline(single, 2 * LEAST)


def test_autocast_is_bfloat16_too(in_blocks: list[torch.Size]) -> None:
    model = decoder(attention=attention(qk_norm=RMSNorm))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randint(0, VOCAB, (2, 7))).sum().backward()
    assert len(in_blocks) == len([module for module in model.modules() if isinstance(module, Attention)])
