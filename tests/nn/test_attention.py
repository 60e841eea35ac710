"""Attention one query at a time, and the promises of its options."""

import math
import re
from functools import partial

import pytest
import torch
from catalogue import (
    CONTEXT,
    DIM,
    DIM_HEAD,
    HEADS,
    VOCAB,
    attention,
    context_decoder,
    crop,
    decoder,
    randomise,
)
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.attention.kernels.backends import choose_backend
from lightning_xt.nn.attention.kernels.scoring import Scoring
from lightning_xt.nn.attention.kernels.single_query import attend_single_query, single_query_is_faster
from lightning_xt.nn.normalizers.sigmoid import Sigmoid
from lightning_xt.nn.normalizers.softmax import Softmax
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.score_mods.soft_cap import SoftCap
from lightning_xt.nn.score_mods.talking_heads import TalkingHeads
from lightning_xt.nn.scores.dot_product import DotProduct
from lightning_xt.nn.scores.negative_distance import NegativeDistance
from lightning_xt.nn.value_mods.value_residual import ValueResidual

NO_INPUTS = Inputs()


def sequence(n: int, causal: bool = True, inputs: Inputs = NO_INPUTS) -> Where:
    return Where.from_sequence(n, causal=causal, inputs=inputs, lengths=None, device=torch.device("cpu"))


def layer(context_dim: int | None = None, **options: object) -> Attention:
    shape = LayerShape(dim=DIM, depth=2, causal=context_dim is None, context_dim=context_dim)
    options = {"heads": HEADS, "dim_head": DIM_HEAD, "position": None, **options}
    return Attention(shape, **options).double().eval()


def scoring(position: Position | None, where: Where) -> Scoring:
    shape = layer().shape
    return Scoring(DotProduct(shape), position, None, [], Softmax(shape), where, 1.0, 0.0)


def states(rows: int, n: int, dim: int = DIM) -> Tensor:
    return torch.randn(rows, n, dim, dtype=torch.float64)


def naive(layer: Attention, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """Compute queries of x over keys of source, one row, head and query after the other; mask (b, i, j)."""
    d, heads, kv_heads = layer.shape.dim_head, layer.shape.heads, layer.shape.kv_heads
    if layer.shape.context_dim is None:
        to_q, to_k, to_v = layer.projection.to_qkv.weight.split((heads * d, kv_heads * d, kv_heads * d))
    else:
        to_q = layer.projection.to_q.weight
        to_k, to_v = layer.projection.to_kv.weight.chunk(2)
    out = torch.zeros(*x.shape[:2], heads * d, dtype=x.dtype)
    for b in range(x.shape[0]):
        for h in range(heads):
            mine = slice(h * d, (h + 1) * d)
            g = h // (heads // kv_heads)
            theirs = slice(g * d, (g + 1) * d)
            keys = [to_k[theirs] @ vector for vector in source[b]]
            values = [to_v[theirs] @ vector for vector in source[b]]
            if layer.memory is not None:
                keys += list(layer.memory[0, g])
                values += list(layer.memory[1, g])
            for i in range(x.shape[1]):
                q = to_q[mine] @ x[b, i]
                total, gathered = 0.0, torch.zeros(d, dtype=x.dtype)
                for j, (k, v) in enumerate(zip(keys, values, strict=True)):
                    if j >= source.shape[1] or mask[b, i, j]:
                        weight = math.exp(q @ k / math.sqrt(d))
                        total += weight
                        gathered = gathered + weight * v
                if total:
                    out[b, i, mine] = gathered / total
    return out @ layer.to_out.weight.T


BACKENDS = pytest.mark.parametrize("backend", ["auto", "fused", "explicit"])


@BACKENDS
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@torch.no_grad()
def test_causal_attention_with_groups_of_heads(kv_heads: int, backend: str) -> None:
    attention, x = layer(kv_heads=kv_heads, backend=backend), states(2, 5)
    out, _ = attention(x, sequence(5), Inputs(), Trace(), None)
    mask = torch.tensor([[[j <= i for j in range(5)] for i in range(5)]] * 2)
    torch.testing.assert_close(out, naive(attention, x, x, mask))


@BACKENDS
@pytest.mark.parametrize("window", [1, 2, 3, 5, 8])
@torch.no_grad()
def test_a_window_counts_the_token_itself(window: int, backend: str) -> None:
    attention, x = layer(window=window, backend=backend), states(2, 7)
    out, _ = attention(x, sequence(7), Inputs(), Trace(), None)
    mask = torch.tensor([[[i - window < j <= i for j in range(7)] for i in range(7)]] * 2)
    torch.testing.assert_close(out, naive(attention, x, x, mask))


@BACKENDS
@pytest.mark.parametrize("options", [{"memory": 3}, {"memory": 3, "kv_heads": 2}, {"memory": 2, "window": 2}], ids=str)
@torch.no_grad()
def test_persistent_keys_are_seen_by_every_token(options: dict[str, int], backend: str) -> None:
    attention, x = layer(backend=backend, **options), states(2, 5)
    window = options.get("window", 5)
    out, _ = attention(x, sequence(5), Inputs(), Trace(), None)
    mask = torch.tensor([[[i - window < j <= i for j in range(5)] for i in range(5)]] * 2)
    torch.testing.assert_close(out, naive(attention, x, x, mask))


@torch.no_grad()
def test_persistent_keys_get_no_bias() -> None:
    """A token that sees only itself and the persistent keys has bias 0 with and without positions."""
    x, outs = states(2, 5), []
    for position in (None, ALiBi):
        torch.manual_seed(3)
        attention = layer(memory=3, window=1, position=position, backend="explicit")
        outs.append(attention(x, sequence(5), Inputs(), Trace(), None)[0])
    torch.testing.assert_close(outs[1], outs[0])


@BACKENDS
@torch.no_grad()
def test_attention_without_direction(backend: str) -> None:
    attention = Attention(LayerShape(dim=DIM, causal=False), heads=HEADS, dim_head=DIM_HEAD, position=None)
    attention = attention.double()
    attention.backend, x = backend, states(2, 5)
    out, _ = attention(x, sequence(5, causal=False), Inputs(), Trace(), None)
    torch.testing.assert_close(out, naive(attention, x, x, torch.ones(2, 5, 5)))


@BACKENDS
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_cross_attention(masked: bool, backend: str) -> None:
    attention, x, context = layer(context_dim=CONTEXT, kv_heads=2, backend=backend), states(2, 5), states(2, 3, CONTEXT)
    real = torch.tensor([[True, True, True], [True, False, True]])
    inputs = Inputs(context=context, context_mask=real if masked else None)
    out, trace = attention(x, sequence(5), inputs, Trace(), None)
    mask = real[:, None].expand(-1, 5, -1) if masked else torch.ones(2, 5, 3)
    torch.testing.assert_close(out, naive(attention, x, context, mask))
    assert len(trace.context_values) == 1 and trace.values == ()


@BACKENDS
@torch.no_grad()
def test_a_query_that_sees_no_key_gathers_nothing(backend: str) -> None:
    hidden = torch.tensor([[False, True, False]])
    attention, x = layer(window=1, backend=backend), states(1, 3)
    out, _ = attention(x, sequence(3, inputs=Inputs(hidden_tokens=hidden)), Inputs(), Trace(), None)
    assert out[0, 1].tolist() == [0.0] * DIM
    assert out[0, 0].abs().max() > 0


@torch.no_grad()
def test_padding_the_context_changes_nothing() -> None:
    model = randomise(lambda: context_decoder(position=None))
    tokens, context = torch.randint(0, VOCAB, (2, 7)), states(2, 3, CONTEXT)
    plain = model(tokens, inputs=Inputs(context=context))
    padded = torch.cat((context, 1e3 * states(2, 4, CONTEXT)), dim=1)
    mask = torch.tensor([[True] * 3 + [False] * 4] * 2)
    torch.testing.assert_close(model(tokens, inputs=Inputs(context=padded, context_mask=mask)), plain)


@torch.no_grad()
def test_keys_of_the_context_are_made_once_while_decoding() -> None:
    model = randomise(lambda: context_decoder(position=None))
    tokens, inputs = torch.randint(0, VOCAB, (2, 7)), Inputs(context=states(2, 3, CONTEXT))
    calls = []
    for name, sublayer in model.stack.sublayers.items():
        if "cross" in name:
            sublayer.branch.projection.to_kv.register_forward_hook(lambda *_, name=name: calls.append(name))
    cache = model.new_cache(2, 7)
    steps = [model(tokens[:, :3], inputs=inputs, cache=cache)]
    # The context need not be passed again, and is not read if it is.
    steps += [model(tokens[:, [3]], cache=cache), model(tokens[:, [4]], inputs=inputs, cache=cache)]
    for other in (states(2, 3, CONTEXT), 3 * inputs.context):
        with pytest.raises(ValueError, match="the cached rows began with another context"):
            model(tokens[:, 5:], inputs=Inputs(context=other), cache=cache)
    steps += [model(tokens[:, 5:], cache=cache)]
    assert calls == ["0_cross_attention", "1_cross_attention"]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(tokens, inputs=inputs))


def test_cross_attention_asks_for_its_context() -> None:
    with pytest.raises(
        ValueError, match=re.escape("Attention needs Inputs(context=...), but this forward has no context")
    ):
        layer(context_dim=CONTEXT)(states(2, 5), sequence(5), Inputs(), Trace(), None)


@torch.no_grad()
def test_norms_of_queries_and_keys_are_per_head() -> None:
    attention, x = layer(qk_norm=RMSNorm, kv_heads=2, backend="explicit"), states(1, 3)
    attention.q_norm.gain.mul_(3.0)
    seen: list[Tensor] = []
    original = attention.projection.attend
    attention.projection.attend = lambda q, k, v, kernel: seen.extend((q, k)) or original(q, k, v, kernel)
    attention(x, sequence(3), Inputs(), Trace(), None)
    q, k = seen
    assert q.shape == (1, 4, 3, 6) and k.shape == (1, 2, 3, 6)
    torch.testing.assert_close(q.square().mean(-1), torch.full((1, 4, 3), 9.0).double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(k.square().mean(-1), torch.ones(1, 2, 3).double(), rtol=1e-4, atol=1e-4)
    assert attention.q_norm.gain.shape == (DIM_HEAD,)


@pytest.mark.parametrize("backend", ["fused", "explicit"])
@torch.no_grad()
def test_dropout_drops_weights_in_training_only(backend: str) -> None:
    """The first token sees only itself, so its one weight in each head is dropped or doubled."""
    attention = layer(heads=1, dropout=0.5, backend=backend)
    x = states(1, 2).expand(1000, -1, -1)
    kept, _ = attention(x, sequence(2), Inputs(), Trace(), None)
    torch.testing.assert_close(kept, kept[:1].expand_as(kept))
    first = attention.train()(x, sequence(2), Inputs(), Trace(), None)[0][:, 0]
    zero = (first == 0).all(-1)
    assert 400 < int(zero.sum()) < 600
    torch.testing.assert_close(first[~zero], 2 * kept[~zero, 0])


def test_cycle_starts_over_after_its_last_recipe() -> None:
    recipes = [attention(window=3), attention(window=5), attention()]
    model = decoder(depth=5, attention=partial(Cycle, recipes=recipes))
    layers = [module for module in model.modules() if isinstance(module, Cycle)]
    assert [cycle.mixer.window for cycle in layers] == [3, 5, None, 3, 5]


def test_cycle_refuses_an_empty_list() -> None:
    with pytest.raises(ValueError, match="attention: Cycle has an empty list of recipes; give at least one"):
        Cycle(LayerShape(dim=DIM), recipes=[])


def test_cases_p11_refuses_more_recipes_than_layers() -> None:
    recipes = [attention(), attention(window=3), attention(position=None)]
    message = r"^attention: Cycle has 3 recipes, but there are only 2 layer\(s\); remove recipes, or raise depth$"
    with pytest.raises(ValueError, match=message):
        decoder(depth=2, attention=partial(Cycle, recipes=recipes))


# Choosing a backend ---------------------------------------------------------------------------------------------------

ALL_THREE = frozenset({"fused", "flex", "explicit"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ALL_THREE),
        ({"position": ALiBi}, ALL_THREE),
        ({"dropout": 0.1}, {"fused", "explicit"}),
        ({"score_mods": [SoftCap]}, {"flex", "explicit"}),
        ({"score_mods": [TalkingHeads]}, {"explicit"}),
        ({"normalizer": Sigmoid}, {"explicit"}),
    ],
    ids=["plain", "bias", "dropout", "soft_cap", "talking_heads", "sigmoid"],
)
def test_an_attention_runs_where_all_its_parts_run(options: dict[str, object], expected: set[str]) -> None:
    assert layer(**options).supported_backends == expected


def test_the_fastest_backend_that_can_is_chosen() -> None:
    long, short = sequence(128), sequence(127)
    alibi = ALiBi(layer().shape)
    rotary = Rotary(layer().shape)
    assert choose_backend("auto", ALL_THREE, scoring(rotary, long), "cuda") == "fused"
    assert choose_backend("auto", ALL_THREE, scoring(None, long.limit_window(5)), "cuda") == "flex"
    assert choose_backend("auto", ALL_THREE, scoring(alibi, long), "cuda") == "flex"
    assert choose_backend("auto", ALL_THREE, scoring(alibi, short), "cuda") == "fused"
    assert choose_backend("auto", ALL_THREE, scoring(alibi, long), "cpu") == "fused"
    assert choose_backend("auto", frozenset({"flex", "explicit"}), scoring(rotary, long), "cuda") == "flex"
    assert choose_backend("auto", frozenset({"flex", "explicit"}), scoring(rotary, long), "cpu") == "explicit"
    assert choose_backend("explicit", ALL_THREE, scoring(rotary, long), "cuda") == "explicit"


@pytest.mark.parametrize("part", [{"score_mods": [TalkingHeads]}, {"normalizer": Sigmoid}, {"score_mods": [SoftCap]}])
def test_refuses_a_backend_that_a_part_cannot_run_on(part: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="attention: backend 'fused' cannot compute") as error:
        layer(backend="fused", **part)
    name = (part.get("normalizer") or part["score_mods"][0]).__name__
    runs_on = "explicit, flex" if name == "SoftCap" else "explicit"
    assert f"{name}, which runs on {runs_on}; use 'auto'" in str(error.value)


def test_refuses_flex_with_dropout() -> None:
    with pytest.raises(ValueError, match=r"backend 'flex' has no dropout, but dropout is 0.1; use 'auto' or dropout 0"):
        layer(backend="flex", dropout=0.1)


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_sizes_by_default() -> None:
    shape = Attention(LayerShape(dim=24)).shape
    assert (shape.heads, shape.kv_heads, shape.dim_head) == (8, 8, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "attention: dim (12) must be a multiple of heads (5), or dim_head must be given"),
        ({"heads": 0}, "attention has heads 0, which must be at least 1"),
        ({"heads": 7, "kv_heads": 2}, "attention: heads (7) must be a multiple of kv_heads (2); try kv_heads 1"),
        (
            {"heads": 6, "kv_heads": 4},
            "heads (6) must be a multiple of kv_heads (4); try kv_heads 3",
        ),
        ({"heads": 4, "kv_heads": 0}, "attention has kv_heads 0, which must be at least 1"),
        ({"heads": 0, "dim_head": 3}, "attention has heads 0, which must be at least 1"),
        ({"heads": 4, "dim_head": -2}, "attention has dim_head -2, which must be at least 1"),
        ({"window": 0}, "attention has window 0, which must be at least 1"),
        ({"memory": -1}, "attention has memory -1, which must be at least 0"),
        ({"dropout": 1.0}, "attention has dropout 1.0, which must be at least 0 and below 1"),
        ({"dropout": -0.1}, "attention has dropout -0.1, which must be at least 0 and below 1"),
    ],
    ids=str,
)
def test_refuses_sizes_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Attention(LayerShape(dim=12), **{"heads": 4, **options})


def test_refuses_a_window_over_a_context() -> None:
    with pytest.raises(
        ValueError, match="attention: window is 3, but cross-attention has no distances; set it to null"
    ):
        layer(context_dim=CONTEXT, window=3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"qk_norm": RMSNorm, "memory": 3}, "qk_norm RMSNorm and memory"),
        ({"k_norm": RMSNorm}, "k_norm RMSNorm"),
        ({"value_mods": [ValueResidual]}, "value_mods ValueResidual"),
        ({"memory": 3}, "memory"),
        ({"score": NegativeDistance}, "score NegativeDistance"),
        ({"position": Contextual}, "position Contextual"),
    ],
)
def test_refuses_parts_that_need_heads_without_heads(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match="attention: projection Latent has no keys and values per head") as error:
        layer(projection=Latent, **options)
    assert f"so it cannot be combined with {named}; omit one of them" in str(error.value)


# Single queries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["none", "boolean", "boolean of each row", "bias"])
@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
def test_a_single_query_in_bfloat16_gathers_the_same(kv_heads: int, mask: str) -> None:
    """A single query in bfloat16 agrees with plain products in float64."""
    q, k, v = (torch.randn(2, h, n, d).bfloat16() for h, n, d in ((HEADS, 1, 6), (kv_heads, 17, 6), (kv_heads, 17, 5)))
    given = {
        "none": None,
        "boolean": torch.arange(17).view(1, 1, 1, -1) < 13,
        "boolean of each row": torch.arange(17) < torch.tensor([13, 1]).view(-1, 1, 1, 1),
        "bias": torch.randn(2, HEADS, 1, 17).bfloat16().masked_fill(torch.arange(17) > 13, -math.inf),
    }[mask]
    shared = HEADS // kv_heads
    keys, values = (t.double().repeat_interleave(shared, dim=1) for t in (k, v))
    scores = 0.3 * (q.double() @ keys.mT)
    if given is not None:
        scores = scores.masked_fill(~given, -math.inf) if given.dtype == torch.bool else scores + given.double()
    expected = scores.softmax(dim=-1) @ values
    out = attend_single_query(q, k, v, given, 0.3)
    assert out.dtype == torch.bfloat16 and out.shape == (2, HEADS, 1, 5)
    torch.testing.assert_close(out.double(), expected, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("biased", [False, True], ids=["boolean", "bias"])
def test_cases_p1_a_single_query_in_bfloat16_that_sees_no_key_gathers_0(biased: bool) -> None:
    q, k, v = (torch.randn(2, HEADS, n, 6, dtype=torch.bfloat16, requires_grad=True) for n in (1, 7, 7))
    mask = torch.tensor([True, False]).view(2, 1, 1, 1).expand(-1, -1, -1, 7)
    given = torch.zeros(2, 1, 1, 7).bfloat16().masked_fill(~mask, -math.inf) if biased else mask
    out = attend_single_query(q, k, v, given, 0.3)
    assert out[1].abs().max() == 0 and out[0].abs().min() > 0
    for gradient in torch.autograd.grad(out.float().square().sum(), (q, k, v)):
        assert gradient[1].abs().max() == 0 and gradient[0].norm() > 0
    with torch.no_grad():
        q[0, 0, 0, 0] = math.nan
    assert attend_single_query(q, k, v, given, 0.3)[0, 0].isnan().all(), "NaN is not hidden"


@pytest.mark.parametrize(
    "options",
    [{}, {"kv_heads": 2}, {"window": 3}, {"position": ALiBi, "kv_heads": 2}, {"memory": 3}, {"projection": Latent}],
    ids=str,
)
@torch.no_grad()
def test_decoding_in_bfloat16_agrees_with_the_explicit_backend(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different lengths need a mask and still agree."""
    alone: list[Tensor] = []
    monkeypatch.setattr(
        "lightning_xt.nn.attention.kernels.fused.attend_single_query",
        lambda *args: alone.append(attend_single_query(*args)) or alone[-1],
    )
    model = randomise(lambda: decoder(attention=attention(**options)), torch.float32).bfloat16()
    tokens, logits = torch.randint(0, VOCAB, (2, 9)), {}
    for backend in ("fused", "explicit"):
        for each in (module for module in model.modules() if isinstance(module, Attention)):
            each.backend = backend
        cache = model.new_cache(2, 12, slack=2)
        model(tokens[:, :6], lengths=torch.tensor([6, 2]), cache=cache)
        logits[backend] = torch.cat([model(tokens[:, [t]], cache=cache) for t in range(6, 9)], dim=1).float()
    assert len(alone) == 3 * len(model.stack.steps) // 2
    error = (logits["fused"] - logits["explicit"]).norm() / logits["explicit"].norm()
    assert error < 0.03, f"relative error {error:.3f}"


def test_plain_products_are_for_single_queries_in_bfloat16_alone() -> None:
    q = torch.randn(2, HEADS, 1, DIM_HEAD)
    assert single_query_is_faster(q.bfloat16(), 0.0)
    assert not single_query_is_faster(q.bfloat16(), 0.1) and not single_query_is_faster(q, 0.0)
    assert not single_query_is_faster(q.bfloat16().expand(-1, -1, 2, -1), 0.0) and not single_query_is_faster(
        q.bfloat16().to("meta"), 0.0
    )


# Cache while decoding -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_windowed_layer_caches_its_window_and_the_slack() -> None:
    model = decoder(attention=attention(window=3))
    cache = model.new_cache(2, 100, slack=5)
    tokens = torch.randint(0, VOCAB, (2, 40))
    model(tokens[:, :11], inputs=crop(Inputs(), slice(0, 11)), cache=cache)
    for t in range(11, 40):
        model(tokens[:, [t]], cache=cache)
    kept = {name: tuple(buffer.shape) for name, buffer in cache[0]._buffers.items()}
    assert kept == {"keys": (2, HEADS, 3 + 5, DIM_HEAD), "values": (2, HEADS, 3 + 5, DIM_HEAD)}


@torch.no_grad()
def test_groups_of_heads_cache_one_key_each() -> None:
    layer_, cache = layer(kv_heads=2), Cache(1, 7, calls=1)
    cache.begin(1)
    layer_(states(1, 1), Where.from_cache(cache, Inputs()), Inputs(), Trace(), cache[0])
    assert cache[0]._buffers["keys"].shape == (1, 2, 7, DIM_HEAD)
