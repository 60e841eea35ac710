"""Projections: the layout of heads, and latent attention as DeepSeek-V2 states it, one head at a time."""

import cmath
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.attention.shared_keys import read_shared_keys
from lightning_xt.nn.output_mods.orthogonal import Orthogonal
from lightning_xt.nn.projections.differential import Differential
from lightning_xt.nn.projections.interleaved_heads import InterleavedHeads
from lightning_xt.nn.projections.kv_shift import KVShift
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.projections.partial_key_offset import PartialKeyOffset
from lightning_xt.nn.projections.shared_kv import SharedKV
from lightning_xt.nn.value_mods.laser import Laser
from lightning_xt.nn.value_mods.value_residual import ValueResidual

DIM, HEADS, DIM_HEAD = 13, 4, 6


def shape(**sizes: int) -> AttentionShape:
    return AttentionShape(**{"dim": DIM, "heads": HEADS, "kv_heads": HEADS, "dim_head": DIM_HEAD, **sizes})


def sequence(n: int) -> Where:
    return Where.from_sequence(n, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu"))


def test_multi_head_gives_head_k_the_kth_slice_of_each_map() -> None:
    projection = MultiHead(shape(kv_heads=2)).double()
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    q, k, v = projection.project(x)
    assert q.shape == (2, 4, 3, 6) and k.shape == v.shape == (2, 2, 3, 6)
    to_q, to_k, to_v = projection.to_qkv.weight.split((4 * DIM_HEAD, 2 * DIM_HEAD, 2 * DIM_HEAD))
    for made, weight, heads in ((q, to_q, 4), (k, to_k, 2), (v, to_v, 2)):
        for h in range(heads):
            for n in range(3):
                for f in range(DIM_HEAD):
                    expected = (weight[h * DIM_HEAD + f] * x[1, n]).sum()
                    torch.testing.assert_close(made[1, h, n, f], expected)
    assert projection.scale == pytest.approx(6**-0.5)


@torch.no_grad()
def test_multi_head_adds_biases_to_queries_keys_and_values() -> None:
    own, across = (MultiHead(shape(kv_heads=2, context_dim=dim), bias=True) for dim in (None, 5))
    for layer in (own.to_qkv, across.to_q, across.to_kv):
        layer.weight.zero_()
        layer.bias.copy_(torch.arange(len(layer.bias)))
    q, k, v = own.project(torch.zeros(1, 1, DIM))
    assert torch.cat([each.flatten() for each in (q, k, v)]).tolist() == list(range(8 * DIM_HEAD))
    assert across.project_queries(torch.zeros(1, 1, DIM)).flatten().tolist() == list(range(4 * DIM_HEAD))
    k, v = across.project_keys_values(torch.zeros(1, 1, 5))
    assert torch.cat((k.flatten(), v.flatten())).tolist() == list(range(4 * DIM_HEAD))


def test_multi_head_makes_keys_of_a_context_from_its_own_width() -> None:
    projection = MultiHead(shape(kv_heads=2, context_dim=5)).double()
    x, context = torch.randn(2, 7, DIM, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    q = projection.project_queries(x)
    k, v = projection.project_keys_values(context)
    assert q.shape == (2, 4, 7, 6) and k.shape == v.shape == (2, 2, 3, 6)
    to_k, to_v = projection.to_kv.weight.split(2 * DIM_HEAD)
    for made, weight, source in ((q, projection.to_q.weight, x), (k, to_k, context), (v, to_v, context)):
        for h in range(made.shape[1]):
            expected = source @ weight[h * DIM_HEAD : (h + 1) * DIM_HEAD].T
            torch.testing.assert_close(made[:, h], expected)


@pytest.mark.parametrize("context_dim", [None, 5])
def test_multi_head_names_the_maps_of_each_weight(context_dim: int | None) -> None:
    projection = MultiHead(shape(kv_heads=2, context_dim=context_dim))
    own, across = {"to_qkv": (24, 12, 12)}, {"to_kv": (12, 12)}
    assert projection.stacked_rows == (own if context_dim is None else across)
    assert {f"{name}.weight" for name in projection.stacked_rows} <= projection.state_dict().keys()


def rotate(x: Tensor, at: int) -> Tensor:
    """Apply rotary positions to one vector, pairs (f, f + half) as complex numbers."""
    half = len(x) // 2
    pairs = [complex(x[f], x[f + half]) * cmath.exp(1j * at * 10_000.0 ** (-f / half)) for f in range(half)]
    return torch.tensor([z.real for z in pairs] + [z.imag for z in pairs], dtype=x.dtype)


def compress(x: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
    latent = weight @ x
    return latent / ((latent**2).mean() + 1e-6).sqrt() * gain


def latent_attention(layer: Attention, x: Tensor) -> Tensor:
    """Compute equations 9 to 19 of the paper (RMSNorm after each compression, as its section 3.1.2 adds), by token."""
    p, w = layer.projection, dict(layer.named_parameters())
    d, r, h = p.dim_head, p.rotated_dim, p.heads
    rows = []
    for row in x:
        keys, values, out = [[] for _ in range(h)], [[] for _ in range(h)], []
        for t, token in enumerate(row):
            c_kv = compress(token, w["projection.to_latent.linear.weight"], w["projection.to_latent.gain"])
            k_r = rotate(w["projection.to_rotated_key.weight"] @ token, t)
            c_q = token
            if "projection.to_query_latent.gain" in w:
                c_q = compress(
                    token, w["projection.to_query_latent.linear.weight"], w["projection.to_query_latent.gain"]
                )
            heads = []
            for head in range(h):
                mine = slice(head * d, (head + 1) * d)
                keys[head].append(torch.cat((w["projection.to_keys.weight"][mine] @ c_kv, k_r)))
                values[head].append(w["projection.to_values.weight"][mine] @ c_kv)
                q = w["projection.to_q.weight"][head * (d + r) : (head + 1) * (d + r)] @ c_q
                q = torch.cat((q[:d], rotate(q[d:], t)))
                weights = [math.exp(q @ k / math.sqrt(d + r)) for k in keys[head]]
                heads.append(sum(a * v for a, v in zip(weights, values[head], strict=True)) / sum(weights))
            out.append(w["to_out.weight"] @ torch.cat(heads))
        rows.append(torch.stack(out))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"latent_dim": 5, "rotary_dim": 2}, {"latent_dim": 5, "query_latent_dim": 7, "rotary_dim": 8}],
    ids=str,
)
def test_latent_follows_the_equations_of_the_paper(sizes: dict[str, int]) -> None:
    layer = Attention(
        LayerShape(dim=DIM), heads=HEADS, dim_head=DIM_HEAD, projection=lambda shape: Latent(shape, **sizes)
    ).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        x = torch.randn(2, 5, DIM, dtype=torch.float64)
        out, _ = layer(x, sequence(5), Inputs(), Trace(), None)
        torch.testing.assert_close(out, latent_attention(layer, x), rtol=1e-6, atol=1e-6)


def test_latent_caches_one_latent_and_one_rotated_key_per_token() -> None:
    layer = Attention(
        LayerShape(dim=DIM), heads=HEADS, dim_head=DIM_HEAD, projection=lambda shape: Latent(shape, latent_dim=5)
    )
    cache = Cache(2, 11, calls=1)
    cache.begin(3)
    layer(torch.randn(2, 3, DIM), Where.from_cache(cache, Inputs()), Inputs(), Trace(), cache[0])
    kept = {name: tuple(buffer.shape) for name, buffer in cache[0]._buffers.items()}
    # Half of dim_head 6, rounded up to even, is 4.
    assert kept == {"latents": (2, 1, 11, 5 + 4)}
    assert layer.projection.rotated_dim == 4


def test_latent_never_expands_its_cache() -> None:
    """One query reads many latents without expansion; as many queries as keys expand them, with the same result."""
    layer = Attention(LayerShape(dim=DIM), heads=HEADS, dim_head=DIM_HEAD, projection=Latent).double()
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    widths = []
    original = layer.projection.attend

    def attend(q: Tensor, k: Tensor, v: Tensor, kernel: object) -> Tensor:
        def watch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            widths.append((q.shape[-1], k.shape[1], v.shape[-1]))
            return kernel(q, k, v)

        return original(q, k, v, watch)

    layer.projection.attend = attend
    expanded, _ = layer(x, sequence(5), Inputs(), Trace(), None)
    cache, steps = Cache(2, 5, calls=1), []
    for piece in (x[:, :3], x[:, 3:]):
        cache.begin(piece.shape[1])
        steps.append(layer(piece, Where.from_cache(cache, Inputs()), Inputs(), Trace(), cache[0])[0])
        cache.commit()
    torch.testing.assert_close(torch.cat(steps, dim=1), expanded)
    own, absorbed = (DIM_HEAD + 4, HEADS, DIM_HEAD), (6 + 4, 1, 6)
    assert widths == [own, own, absorbed]


def test_latent_sizes_by_default() -> None:
    latent = Latent(shape())
    assert (latent.latent_dim, latent.rotated_dim) == (6, 4)
    assert latent.scale == pytest.approx(10**-0.5)


def test_latent_refuses_groups_of_heads() -> None:
    with pytest.raises(ValueError, match=r"projection: Latent .* kv_heads \(2\) must be heads \(4\) or null"):
        Latent(shape(kv_heads=2))


def test_interleaved_heads_mixes_heads_from_the_identity() -> None:
    projection, x = InterleavedHeads(shape(kv_heads=2)), torch.randn(2, 3, DIM)
    plain = projection.unmixed.project(x)
    for mixed, own in zip(projection.project(x), plain, strict=True):
        torch.testing.assert_close(mixed, own)
    with torch.no_grad():
        projection.query_mix[0, 3] = 2.0
        projection.value_mix.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    q, k, v = projection.project(x)
    torch.testing.assert_close(q[:, 3], plain[0][:, 3] + 2 * plain[0][:, 0])
    torch.testing.assert_close(k, plain[1])
    torch.testing.assert_close(v, plain[2].flip(1))


def test_kv_shift_weighs_each_key_and_value_with_the_one_before() -> None:
    sizes = AttentionShape(dim=13, heads=4, kv_heads=2, dim_head=3)
    projection = KVShift(sizes)
    assert projection.key_weights.sum(dim=0).flatten().tolist() == pytest.approx([1.0, 1.0])
    assert projection.value_weights.min() >= 0 and projection.value_weights.max() <= 1
    _, k, v = projection.project(torch.randn(1, 4, 13))
    mixed_k, mixed_v = projection.shift(k, v, sequence(4), None)
    for g in range(2):
        for n in range(4):
            for mixed, own, (a, b) in (
                (mixed_k, k, projection.key_weights[:, g].flatten().tolist()),
                (mixed_v, v, projection.value_weights[:, g].flatten().tolist()),
            ):
                before = own[0, g, n - 1] if n else torch.zeros(3)
                torch.testing.assert_close(mixed[0, g, n], a * own[0, g, n] + b * before)


def test_partial_key_offset_takes_the_last_features_from_the_token_before() -> None:
    projection = PartialKeyOffset(AttentionShape(dim=13, heads=1, kv_heads=1, dim_head=3), offset_dim=2)
    k, v = torch.arange(1.0, 10.0).view(1, 1, 3, 3), torch.randn(1, 1, 3, 3)
    mixed, same = projection.shift(k, v, sequence(3), None)
    assert mixed[0, 0].tolist() == [[1.0, 0.0, 0.0], [4.0, 2.0, 3.0], [7.0, 5.0, 6.0]]
    assert same.equal(v)


def test_partial_key_offset_finds_in_one_layer_what_followed_a_token() -> None:
    """With offset keys, the query of b matches the key of the token after the earlier b."""
    projection = PartialKeyOffset(AttentionShape(dim=2, heads=1, kv_heads=1, dim_head=2), offset_dim=2)
    a, b, c = torch.eye(3)
    keys = torch.stack((a, b, c, b))[None, None, :, :2]
    mixed, _ = projection.shift(keys, keys, sequence(4), None)
    assert (mixed[0, 0] @ b[:2]).tolist() == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("kind", [KVShift, PartialKeyOffset])
def test_mixed_neighbours_need_keys_per_head(kind: type) -> None:
    with pytest.raises(
        ValueError, match=f"projection: {kind.__name__} mixes keys and values per head, which Latent does"
    ):
        kind(AttentionShape(dim=13, heads=2, kv_heads=2, dim_head=4), projection=Latent)


@pytest.mark.parametrize("offset_dim", [0, 4])
def test_partial_key_offset_refuses_features_it_has_not(offset_dim: int) -> None:
    with pytest.raises(ValueError, match=f"projection: PartialKeyOffset has offset_dim {offset_dim}, .* from 1 to 3"):
        PartialKeyOffset(AttentionShape(dim=13, heads=1, kv_heads=1, dim_head=3), offset_dim=offset_dim)


# Differential ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_differential_is_its_formula() -> None:
    """(softmax1 - lambda softmax2) V over values of two heads, normed, for pairs of heads; as in the paper's code."""
    layer = Attention(
        LayerShape(dim=8, layer=2), heads=4, kv_heads=2, dim_head=3, value_dim=5, projection=Differential, position=None
    ).double()
    projection, x = layer.projection, torch.randn(2, 7, 8).double()
    projection.gain.copy_(torch.rand(10))
    joined: list[Tensor] = []
    layer.to_out.register_forward_pre_hook(lambda _, args: joined.append(args[0]))
    where = Where.from_sequence(7, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu"))
    layer(x, where, Inputs(), Trace(), None)
    q, k, v = projection.project(x)
    start = 0.8 - 0.6 * math.exp(-0.6)
    assert projection.lambda_init == pytest.approx(start)
    (q1, k1), (q2, k2) = projection.lambdas
    weight = (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + start
    scores = q @ k.repeat_interleave(2, dim=1).mT / 3**0.5
    weights = scores.masked_fill(torch.ones(7, 7).triu(1) > 0, float("-inf")).softmax(dim=-1).view(2, 2, 2, 7, 7)
    # Two pairs of heads share the one pair of key heads.
    values = v.transpose(1, 2).flatten(2)[:, None]
    out = (weights[:, :, 0] - weight * weights[:, :, 1]) @ values
    out = out / (out.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * projection.gain * (1 - start)
    torch.testing.assert_close(joined[0], out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "projection: Differential makes pairs of heads, so heads (3) and kv_heads (3) must be even"),
        ({"kv_heads": 1}, "so heads (4) and kv_heads (1) must be even"),
        ({"projection": partial(Differential, lambda_init=1.0)}, "projection: Differential has lambda_init 1.0, which"),
        (
            {"value_mods": [Laser]},
            "numbers above 0 only, but those of projection Differential may be negative; omit one",
        ),
        (
            {"value_mods": [Laser], "projection": partial(KVShift, projection=Differential)},
            "those of projection KVShift may be negative; omit one of them",
        ),
    ],
)
def test_differential_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Attention(LayerShape(dim=12), **{"heads": 4, "projection": Differential, **options})


# Shared keys and values -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_upper_layers_read_the_keys_of_one_layer_and_cache_none() -> None:
    model = Decoder(11, dim=8, depth=5, attention=partial(Attention, heads=2, projection=SharedKV)).double().eval()
    layers = [model.stack.sublayers[f"{number}_attention"].branch for number in range(5)]
    assert [layer.projection.shares_keys for layer in layers] == [False, False, True, False, False]
    assert [layer.projection.reads_shared_keys for layer in layers] == [False, False, False, True, True]
    cache = model.new_cache(2, 9)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    for number, layer in enumerate(layers):
        gather = layer.projection.attend

        def attend(q: Tensor, k: Tensor, v: Tensor, kernel: Any, number: int = number, gather: Any = gather) -> Tensor:
            seen[number] = k, v
            return gather(q, k, v, kernel)

        layer.projection.attend = attend
    model(torch.randint(0, 11, (2, 7)), cache=cache)
    calls = [call for call, step in enumerate(model.stack.steps) if step.kind == "attention"]
    assert ["keys" in cache[call]._buffers for call in calls] == [True, True, True, False, False]
    assert seen[2][0] is seen[3][0] is seen[4][0] and seen[2][1] is seen[4][1]
    assert not torch.equal(seen[1][0], seen[2][0])


def build_shared(**options: Any) -> Decoder:
    return Decoder(11, dim=8, depth=2, attention=partial(Attention, **{"heads": 2, "projection": SharedKV, **options}))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: build_shared(projection=partial(SharedKV, shared_layer=2)),
            "projection: SharedKV has shared_layer 2, which must be at least 0 and below 2",
        ),
        (
            lambda: build_shared(projection=partial(SharedKV, shared_layer=0), value_mods=[ValueResidual]),
            "value_mods: ValueResidual works on the values of each layer, but with projection SharedKV the upper",
        ),
        (
            lambda: build_shared(projection=partial(SharedKV, shared_layer=0), output_mods=[Orthogonal]),
            "output_mods: Orthogonal works on the values of each layer, but with projection SharedKV the upper",
        ),
        (
            lambda: build_shared(projection=partial(KVShift, projection=SharedKV)),
            "projection: KVShift mixes the keys of each layer, but with SharedKV the upper layers have none",
        ),
        (
            lambda: Attention(LayerShape(dim=8, context_dim=5), heads=2, projection=SharedKV),
            "projection: SharedKV serves self-attention only, but this is cross-attention; omit it there",
        ),
    ],
)
def test_shared_keys_refuse(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_shared_keys_refuse_another_window_and_a_missing_layer() -> None:
    recipes = [
        partial(Attention, heads=2, projection=partial(SharedKV, shared_layer=0), window=each) for each in (3, 4)
    ]
    model = Decoder(11, dim=8, depth=2, attention=partial(Cycle, recipes=recipes))
    said = (
        "attention: window is 4, but this layer reads shared keys of a layer with window 3; give both the same window"
    )
    with pytest.raises(ValueError, match=said):
        model(torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="no layer before this one shares its keys"):
        read_shared_keys(Trace(), None)
