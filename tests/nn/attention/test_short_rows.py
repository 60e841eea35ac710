"""Short rows in plain products against the weights of all pairs, and their conditions."""

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
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.kernels import fused
from lightning_xt.nn.attention.kernels.short_rows import LONGEST, attend_short_rows
from lightning_xt.nn.positions.alibi import ALiBi

HEADS, KV_HEADS, QUERIES, KEYS, SCALE = 4, 2, 5, 7, 0.3


def make_qkv(rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    sizes = ((HEADS, QUERIES, 6), (KV_HEADS, KEYS, 6), (KV_HEADS, KEYS, 5))
    q, k, v = (torch.randn(rows, *size, dtype=torch.float64, requires_grad=True) for size in sizes)
    return q, k, v


def make_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights of all pairs, by powers; 0 for a query that sees nothing."""
    k = torch.stack([k[:, h // (HEADS // KV_HEADS)] for h in range(HEADS)], dim=1)
    scores = SCALE * torch.einsum("bhid,bhjd->bhij", q, k)
    if mask is None:
        powers = scores.exp()
    else:
        powers = scores.exp() * mask if mask.dtype == torch.bool else (scores + mask).exp()
    return powers / powers.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def gather(weights: Tensor, v: Tensor) -> Tensor:
    v = torch.stack([v[:, h // (HEADS // KV_HEADS)] for h in range(HEADS)], dim=1)
    return torch.einsum("bhij,bhje->bhie", weights, v)


def padding() -> Tensor:
    """Return which keys are visible: none for the second row."""
    return torch.tensor([[True] * 4 + [False] * 3, [False] * 7]).view(2, 1, 1, KEYS)


def pairs() -> Tensor:
    """Return which keys each query sees: none for the query in the middle."""
    visible = torch.rand(1, 1, QUERIES, KEYS) < 0.6
    visible[..., 0], visible[..., 2, :] = True, False
    return visible


def bias() -> Tensor:
    """Return a bias of each head, which hides some keys and, from one query, all."""
    return torch.randn(1, HEADS, QUERIES, KEYS, dtype=torch.float64).masked_fill(~pairs(), float("-inf"))


@pytest.mark.parametrize("make", [lambda: None, padding, pairs, bias], ids=["all", "padding", "pairs", "bias"])
def test_products_compute_all_pairs(make: object) -> None:
    """The weights are made in float32: float64 distinguishes the formula from its rounding, here 1e-7 of it."""
    (q, k, v), mask = make_qkv(), make()
    out, expected = attend_short_rows(q, k, v, mask, SCALE), gather(make_weights(q, k, mask), v)
    assert out.shape == (2, HEADS, QUERIES, 5) and out.dtype == torch.float64
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    along = torch.randn_like(out)
    for mine, whole in zip(*(torch.autograd.grad(each, (q, k, v), along) for each in (out, expected)), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-5)


def test_a_bias_is_learned() -> None:
    (q, k, v), learned = make_qkv(), bias().requires_grad_()
    along = torch.randn(2, HEADS, QUERIES, 5, dtype=torch.float64)
    (mine,) = torch.autograd.grad(attend_short_rows(q, k, v, learned, SCALE), learned, along)
    # Its own formula has no gradient where all keys of a query are hidden.
    shown = learned.detach().exp().clamp(min=1e-300).log().requires_grad_()
    (whole,) = torch.autograd.grad(gather(make_weights(q, k, shown), v), shown, along)
    seen = learned.isfinite()
    assert mine.isfinite().all() and (mine[~seen] == 0).all()
    torch.testing.assert_close(mine[seen], whole[seen], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_drops_its_fraction_of_the_weights(dropout: float) -> None:
    """One-hot values show each weight: it is scaled up, or 0."""
    q, k, _ = (t.detach() for t in make_qkv(rows=400))
    v = torch.eye(KEYS, dtype=torch.float64).expand(400, KV_HEADS, -1, -1)
    shown, whole = attend_short_rows(q, k, v, None, SCALE, dropout), make_weights(q, k, None)
    kept = shown > 0
    torch.testing.assert_close(shown[kept], whole[kept] / (1 - dropout), rtol=1e-5, atol=1e-7)
    assert 1 - kept.double().mean().item() == pytest.approx(dropout, abs=0.01)


# Conditions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Record the shapes of keys of short rows."""
    shapes: list[torch.Size] = []

    def watch(q: Tensor, k: Tensor, *others: object) -> Tensor:
        shapes.append(k.shape)
        return attend_short_rows(q, k, *others)

    monkeypatch.setattr(fused, "attend_short_rows", watch)
    return shapes


def layer(**options: object) -> Attention:
    return Attention(LayerShape(dim=48), **{"heads": HEADS, "kv_heads": KV_HEADS, **options})


def run(layer: nn.Module, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    where = Where.from_sequence(x.shape[1], causal=False, inputs=Inputs(), lengths=lengths, device=x.device)
    out, _ = layer(x, where, Inputs(), Trace(), None)
    return out


@pytest.mark.parametrize("options", [{}, {"position": ALiBi}, {"window": 3}], ids=str)
def test_a_bfloat16_layer_agrees_with_its_float32_twin(options: dict[str, object], short: list[torch.Size]) -> None:
    half = layer(**options).bfloat16()
    twin = copy.deepcopy(half).float()
    lengths = torch.tensor([7, 4])
    x = torch.randn(2, 7, 48).bfloat16().requires_grad_()
    like = x.detach().float().requires_grad_()
    expected = run(twin, like, lengths)
    assert short == []
    out = run(half, x, lengths)
    assert len(short) == 1
    along = torch.randn_like(out)
    out.backward(along)
    expected.backward(along.float())
    compared = [(out, expected), (x.grad, like.grad)]
    compared += [(mine.grad, theirs.grad) for mine, theirs in zip(half.parameters(), twin.parameters(), strict=True)]
    for mine, theirs in compared:
        # Relative to the largest: a sum rounds in proportion to its terms, not to its result.
        assert (mine.float() - theirs).abs().max() <= 0.02 * theirs.abs().max() + 1e-6


@pytest.mark.parametrize(
    ("n", "dtype", "learned", "calls"),
    [
        (7, torch.bfloat16, True, 1),
        (LONGEST, torch.bfloat16, True, 1),
        (LONGEST + 1, torch.bfloat16, True, 0),
        (7, torch.float32, True, 0),
        (7, torch.bfloat16, False, 0),
    ],
)
def test_short_rows_are_for_training_in_bfloat16(
    n: int, dtype: torch.dtype, learned: bool, calls: int, short: list[torch.Size]
) -> None:
    with torch.set_grad_enabled(learned):
        run(layer().to(dtype), torch.randn(1, n, 48, dtype=dtype))
    assert len(short) == calls


def test_not_where_the_flash_kernel_is_turned_off(short: list[torch.Size]) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        run(layer().bfloat16(), torch.randn(1, 7, 48).bfloat16())
    assert short == []


def test_the_triangle_is_a_mask_where_blocks_are_not_used(
    short: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs for rows of any length have no blocks."""
    model = decoder(attention=attention()).bfloat16()
    ids = torch.randint(0, VOCAB, (2, 9))
    expected = model(ids)
    assert short == []
    monkeypatch.setattr(fused, "blocks_are_faster", lambda q: False)
    out = model(ids)
    assert (out.float() - expected.float()).abs().max() <= 0.02 * expected.float().abs().max()
    assert len(short) == len([module for module in model.modules() if isinstance(module, Attention)])
