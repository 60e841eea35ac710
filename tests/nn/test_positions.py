"""Positions against their formulas, written out in loops."""

import cmath
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from catalogue import attention, decoder
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.combined import Combined
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.positions.distance_mlp import DistanceMLP
from lightning_xt.nn.positions.dynamic_bias import DynamicBias
from lightning_xt.nn.positions.fire import FIRE
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.hard_alibi import HardALiBi
from lightning_xt.nn.positions.path import PaTH
from lightning_xt.nn.positions.polar import Polar
from lightning_xt.nn.positions.randomized_positions import RandomizedPositions
from lightning_xt.nn.positions.relative_bias import RelativeBias
from lightning_xt.nn.positions.relative_projection import RelativeProjection
from lightning_xt.nn.positions.relative_sinusoidal import RelativeSinusoidal
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.positions.shared_relative_bias import SharedRelativeBias
from lightning_xt.nn.positions.xpos import XPos
from lightning_xt.nn.projections.latent import Latent


def shape(heads: int = 3, dim_head: int = 6, causal: bool = True) -> AttentionShape:
    return AttentionShape(dim=13, heads=heads, kv_heads=heads, dim_head=dim_head, causal=causal)


def sequence(n: int, causal: bool = True) -> Where:
    return Where.from_sequence(n, causal=causal, inputs=Inputs(), lengths=None, device=torch.device("cpu"))


def dense_bias(position: Position, x: Tensor, heads: int, causal: bool = True) -> Tensor:
    where = sequence(x.shape[1], causal)
    b, i, j = where.build_indices(x.shape[0])
    prepared = position.prepare(x, where, None, None, Trace())
    return position.bias(b if position.per_row else b * 0, torch.arange(heads).view(1, -1, 1, 1), i, j, prepared)


def test_alibi_slopes_of_eight_heads_halve() -> None:
    expected = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert ALiBi(shape(heads=8)).slopes.tolist() == expected


def test_alibi_slopes_of_twelve_heads_take_every_other_of_sixteen() -> None:
    eight = [2.0**-k for k in range(1, 9)]
    # Sixteen heads would start at 2^-0.5 and continue by that ratio: the first, third, fifth and seventh of them.
    more = [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
    assert ALiBi(shape(heads=12)).slopes.tolist() == pytest.approx(eight + more)


def test_alibi_slopes_of_one_and_three_heads() -> None:
    assert ALiBi(shape(heads=1)).slopes.tolist() == [2.0**-8]
    assert ALiBi(shape(heads=3)).slopes.tolist() == [2.0**-4, 2.0**-8, 2.0**-2]


def test_alibi_bias_is_slope_times_distance() -> None:
    bias = dense_bias(ALiBi(shape(heads=8)), torch.zeros(1, 7, 13), 8)
    assert bias.shape == (1, 8, 7, 7)
    assert bias[0, 2, 5, 2].item() == -3 / 8
    assert bias[0, 7, 6, 0].item() == -6 / 256
    assert bias[0, 0, 4, 4].item() == 0
    assert bias[0, 0, 2, 5].item() == -3 / 2  # both directions, for attention that looks ahead


def test_alibi_leaves_the_other_heads_without_position() -> None:
    slopes = ALiBi(shape(heads=5), biased_heads=2).slopes.tolist()
    assert slopes == [2.0**-4, 2.0**-8, 0, 0, 0]


@pytest.mark.parametrize("biased_heads", [0, 4])
def test_alibi_refuses_heads_it_has_not(biased_heads: int) -> None:
    with pytest.raises(ValueError, match=rf"position: ALiBi has biased_heads {biased_heads}.*1 to heads \(3\)"):
        ALiBi(shape(), biased_heads=biased_heads)


def test_alibi_takes_slopes_of_the_caller() -> None:
    assert ALiBi(shape(heads=4), slopes=[0.5, 2.0]).slopes.tolist() == [0.5, 2.0, 0.0, 0.0]
    assert ALiBi(shape(heads=2), slopes=[1.0, 0.0], biased_heads=2).slopes.tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="position: ALiBi has 1 slopes for 2 biased_heads; give one for each"):
        ALiBi(shape(), slopes=[1.0], biased_heads=2)
    with pytest.raises(ValueError, match=r"position: ALiBi has slope -1\.0, which must be at least 0"):
        ALiBi(shape(), slopes=[-1.0])
    with pytest.raises(ValueError, match=r"position: ALiBi has biased_heads 4, which must be 1 to heads \(3\)"):
        ALiBi(shape(), slopes=[1.0] * 4)


def rotate_by_hand(x: list[float], at: int, rotary_dim: int, base: float) -> list[float]:
    """Rotate one head of one token, pair by pair as complex numbers."""
    half = rotary_dim // 2
    out = list(x)
    for k in range(half):
        z = complex(x[k], x[k + half]) * cmath.exp(1j * at * base ** (-2 * k / rotary_dim))
        out[k], out[k + half] = z.real, z.imag
    return out


@pytest.mark.parametrize(("rotary_dim", "base"), [(None, 10_000.0), (4, 10_000.0), (2, 7.0), (6, 500_000.0)])
def test_rotary_is_multiplication_by_complex_numbers(rotary_dim: int | None, base: float) -> None:
    rotary = Rotary(shape(), rotary_dim=rotary_dim, base=base)
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    at = torch.tensor([[0, 1, 2, 3, 4], [3, 7, 11, 2, 0]])
    for rotate in (rotary.rotate_queries, rotary.rotate_keys):
        out = rotate(x, at)
        for b in range(2):
            for h in range(3):
                for n in range(5):
                    expected = rotate_by_hand(x[b, h, n].tolist(), int(at[b, n]), rotary_dim or 6, base)
                    assert out[b, h, n].tolist() == pytest.approx(expected, abs=1e-5)


def test_rotary_products_depend_on_the_distance_only() -> None:
    rotary = Rotary(shape())
    q, k = torch.randn(1, 1, 1, 6, dtype=torch.float64), torch.randn(1, 1, 1, 6, dtype=torch.float64)

    def product(i: int, j: int) -> float:
        return (rotary.rotate_queries(q, torch.tensor([[i]])) * rotary.rotate_keys(k, torch.tensor([[j]]))).sum().item()

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)
    assert product(4, 4) == pytest.approx((q * k).sum().item(), abs=1e-6)


def test_rotary_turns_an_odd_head_but_for_its_last_feature() -> None:
    rotary = Rotary(shape(dim_head=7))
    x = torch.randn(1, 3, 1, 7)
    assert rotary.rotary_dim == 6
    assert torch.equal(rotary.rotate_keys(x, torch.tensor([[5]]))[..., 6], x[..., 6])


def test_rotary_keeps_float32_angles_in_a_bfloat16_model() -> None:
    rotary = Rotary(shape())
    exact = rotary.frequencies.clone()
    rotary.bfloat16()
    assert rotary.frequencies.dtype == torch.float32 and torch.equal(rotary.frequencies, exact)
    x = torch.ones(1, 1, 1, 6, dtype=torch.bfloat16)
    at = [rotary.rotate_keys(x, torch.tensor([[n]])) for n in (1000, 1003)]
    assert at[0].dtype == torch.bfloat16 and not torch.equal(*at)
    assert at[0].flatten().tolist() == pytest.approx(rotate_by_hand([1.0] * 6, 1000, 6, 10_000.0), abs=0.02)


@pytest.mark.parametrize("rotary_dim", [0, 3, 8])
def test_rotary_refuses_widths_it_cannot_pair(rotary_dim: int) -> None:
    with pytest.raises(ValueError, match=rf"position: Rotary has rotary_dim {rotary_dim}.*even .* dim_head \(6\)"):
        Rotary(shape(), rotary_dim=rotary_dim)


def test_rotary_rotates_the_last_heads_and_the_keys_they_read() -> None:
    sizes = AttentionShape(dim=13, heads=6, kv_heads=3, dim_head=6)
    rotary, whole, at = Rotary(sizes, rotated_heads=4), Rotary(sizes), torch.arange(5)[None]
    q, k = torch.randn(2, 6, 5, 6), torch.randn(2, 3, 5, 6)
    for still, x, name in ((2, q, "rotate_queries"), (1, k, "rotate_keys")):
        out, expected = getattr(rotary, name)(x, at), getattr(whole, name)(x, at)
        assert torch.equal(out[:, :still], x[:, :still]) and torch.equal(out[:, still:], expected[:, still:])
    for wrong in (0, 3, 8):
        with pytest.raises(ValueError, match=rf"rotated_heads {wrong}, .* heads \(6\), and a multiple of .* \(2\)"):
            Rotary(sizes, rotated_heads=wrong)


@pytest.mark.parametrize("scale_base", [2.0, 512.0])
def test_xpos_products_are_those_of_rotary_with_a_decay_for_each_pair(scale_base: float) -> None:
    xpos, rotary = XPos(shape(dim_head=4), scale_base=scale_base), Rotary(shape(dim_head=4))
    assert xpos.frequencies.tolist() == rotary.frequencies.tolist()
    q, k = torch.randn(2, 1, 1, 1, 4, dtype=torch.float64).unbind()
    for i, j in ((5, 5), (7, 2), (107, 102)):
        at, other = torch.tensor([[i]]), torch.tensor([[j]])
        product = xpos.rotate_queries(q, at) * xpos.rotate_keys(k, other)
        plain = rotary.rotate_queries(q, at) * rotary.rotate_keys(k, other)
        # Of the two pairs: (0 + 0.4) / 1.4 and (1 / 2 + 0.4) / 1.4.
        decay = torch.tensor([2 / 7, 9 / 14] * 2, dtype=torch.float64) ** ((i - j) / scale_base)
        torch.testing.assert_close(product, plain * decay, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [{"causal": False}, {"causal": False, "context_dim": 5}])
def test_xpos_refuses_later_keys(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"position: XPos .*, so it serves causal self-attention only; choose another"):
        XPos(AttentionShape(dim=13, heads=3, kv_heads=3, dim_head=6, **given))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_polar_scores_are_a_sum_of_cosines(kv_heads: int) -> None:
    position = Polar(AttentionShape(dim=13, heads=4, kv_heads=kv_heads, dim_head=3), phase_init="uniform").double()
    q, k = torch.randn(1, 4, 1, 3, dtype=torch.float64), torch.randn(1, kv_heads, 1, 3, dtype=torch.float64)
    turned = position.rotate_queries(q, torch.tensor([[9]]))
    keys = position.rotate_keys(k, torch.tensor([[4]]))
    assert turned.shape == (1, 4, 1, 6) and keys.shape == (1, kv_heads, 1, 6)
    for h in range(4):
        g = h // (4 // kv_heads)
        expected = 0.0
        for d in range(3):
            angle = (4 - 9) * 10_000.0 ** (-d / 3) + position.phase[g, 0, d].item()
            length = math.log1p(math.exp(q[0, h, 0, d].item())) * math.log1p(math.exp(k[0, g, 0, d].item()))
            expected += length * math.cos(angle)
        assert (turned[0, h, 0] * keys[0, g, 0]).sum().item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_relative_sinusoidal_scores_are_those_of_transformer_xl(kv_heads: int) -> None:
    """The four terms of its equation, with the sines and cosines of the distance."""
    sizes = AttentionShape(dim=13, heads=4, kv_heads=kv_heads, dim_head=3)
    position = RelativeSinusoidal(sizes, num_features=6).double()
    u, v, w = position.content_bias, position.distance_bias, position.to_distance
    for parameter in (u, v):
        torch.nn.init.normal_(parameter)
    q, k = torch.randn(1, 4, 2, 3, dtype=torch.float64), torch.randn(1, kv_heads, 3, 3, dtype=torch.float64)
    queries = position.rotate_queries(q, torch.tensor([[9, 2]]))
    keys = position.rotate_keys(k, torch.tensor([[4, 9, -3]]))
    for h in range(4):
        g = h // (4 // kv_heads)
        for i, at in enumerate((9, 2)):
            for j, of in enumerate((4, 9, -3)):
                angles = [(at - of) * 10_000.0 ** (-f / 3) for f in range(3)]
                r = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
                terms = (q[0, h, i] @ k[0, g, j], q[0, h, i] @ w[h] @ r, u[h, 0] @ k[0, g, j], v[h, 0] @ w[h] @ r)
                found = queries[0, h, i] @ keys[0, g, j]
                assert found.item() == pytest.approx(sum(term.item() for term in terms))


def test_relative_sinusoidal_has_as_many_features_as_the_stream_is_wide() -> None:
    assert RelativeSinusoidal(shape()).to_distance.shape == (3, 6, 12)
    with pytest.raises(ValueError, match="position: RelativeSinusoidal has num_features 5, which must be even"):
        RelativeSinusoidal(shape(), num_features=5)
    with pytest.raises(ValueError, match="position: RelativeSinusoidal has num_features 0, which must be at least 2"):
        RelativeSinusoidal(shape(), num_features=0)
    with pytest.raises(ValueError, match=r"position: RelativeSinusoidal has base 0\.0, which must be above 0"):
        RelativeSinusoidal(shape(), base=0.0)


def test_polar_phases_start_at_zero_or_between_their_limits() -> None:
    assert Polar(shape()).phase.abs().max() == 0
    phase = Polar(shape(), phase_init="uniform").phase
    assert -2 * math.pi <= phase.min() < phase.max() <= 0


def bucket_of_t5(relative: int, bidirectional: bool, num_buckets: int, max_distance: int) -> int:
    """Compute `_relative_position_bucket` of the T5 release for one pair; relative = key position - query position."""
    bucket = 0
    if bidirectional:
        num_buckets //= 2
        if relative > 0:
            bucket += num_buckets
        relative = abs(relative)
    else:
        relative = -min(relative, 0)
    max_exact = num_buckets // 2
    if relative < max_exact:
        return bucket + relative
    grown = math.log(relative / max_exact) / math.log(max_distance / max_exact) * (num_buckets - max_exact)
    return bucket + min(max_exact + int(grown), num_buckets - 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (10, 23), (7, 17)])
def test_relative_bias_reads_the_bucket_of_t5(causal: bool, num_buckets: int, max_distance: int) -> None:
    n = 151
    position = RelativeBias(shape(causal=causal), num_buckets=num_buckets, max_distance=max_distance)
    bias = dense_bias(position, torch.zeros(1, n, 13), 3, causal)
    for i in range(0, n, 7):
        for j in range(n):
            bucket = bucket_of_t5(j - i, not causal, num_buckets, max_distance)
            assert torch.equal(bias[0, :, i, j], position.table[bucket]), (i, j)


def test_relative_bias_buckets_by_hand() -> None:
    # 16 single distances, then 16 + 16 * log(d / 16) / log(8): 32 -> 21.3, 64 -> 26.7, 128 and more -> 31.
    position = RelativeBias(shape())
    with torch.no_grad():
        position.table.copy_(torch.arange(32)[:, None].expand(-1, 3))
    bias = dense_bias(position, torch.zeros(1, 201, 13), 3)[0, 0, 200]
    assert [int(bias[200 - d]) for d in (0, 1, 15, 16, 32, 64, 127, 128, 200)] == [0, 1, 15, 16, 21, 26, 31, 31, 31]


@pytest.mark.parametrize(
    ("causal", "num_buckets", "max_distance", "buckets", "above"),
    [(True, 1, 128, 2, 0), (False, 3, 128, 4, 0), (True, 32, 16, 2, 16), (False, 32, 8, 4, 8)],
)
def test_relative_bias_refuses_buckets_that_cannot_grow(
    causal: bool, num_buckets: int, max_distance: int, buckets: int, above: int
) -> None:
    with pytest.raises(ValueError, match="position: RelativeBias") as error:
        RelativeBias(shape(causal=causal), num_buckets=num_buckets, max_distance=max_distance)
    assert f"num_buckets {num_buckets} and max_distance {max_distance}" in str(error.value)
    assert f"at least {buckets} buckets and a max_distance above {above}" in str(error.value)


def test_shared_relative_bias_has_one_table_for_all_layers() -> None:
    model = decoder(depth=3, attention=attention(position=SharedRelativeBias))
    names = [name for name, _ in model.named_parameters() if "position" in name]
    assert names == ["stack.sublayers.0_attention.branch.position.table"]
    with torch.no_grad():
        model.get_parameter(names[0]).normal_()
    own = decoder(depth=3, attention=attention(position=RelativeBias))
    state = model.state_dict()
    table = state.pop(names[0])
    tables = {f"stack.sublayers.{layer}_attention.branch.position.table": table for layer in range(3)}
    own.load_state_dict({**state, **tables})
    tokens = torch.arange(7)[None]
    torch.nn.init.normal_(model.head.to_logits.weight)
    own.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(model(tokens), own(tokens))


def test_shared_relative_bias_belongs_to_the_first_layer_that_has_it() -> None:
    recipes = [attention(position=None), attention(position=SharedRelativeBias)]
    model = decoder(depth=4, attention=partial(Cycle, recipes=recipes))
    names = [name for name, _ in model.named_parameters() if "position" in name]
    assert names == ["stack.sublayers.1_attention.branch.mixer.position.table"]
    model(torch.arange(5)[None])


def test_shared_relative_bias_refuses_tables_of_several_sizes() -> None:
    recipes = [attention(position=partial(SharedRelativeBias, num_buckets=each)) for each in (32, 16)]
    message = (
        "position: SharedRelativeBias hands results of one layer to later ones, but attention has num_buckets 32 and "
        "heads 4 in one and num_buckets 16 and heads 4 in another; give all layers the same, or omit SharedRelativeBias"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        decoder(attention=partial(Cycle, recipes=recipes))


@pytest.mark.parametrize(
    "position",
    [Polar, RelativeSinusoidal, partial(Rotary, rotated_heads=1), partial(Combined, positions=[ALiBi, Polar])],
)
def test_positions_that_need_keys_per_head_refuse_latents(position: Callable[[AttentionShape], Position]) -> None:
    with pytest.raises(
        ValueError, match=r"Latent has no keys and values per head, .* combined with position (Polar|R|C)"
    ):
        decoder(attention=attention(position=position, projection=Latent))


def test_forgetting_sums_the_log_of_the_gates_between() -> None:
    position = Forgetting(shape(), bias_init=0.7).double()
    x = torch.randn(2, 5, 13, dtype=torch.float64)
    bias = dense_bias(position, x, 3)
    for b in range(2):
        for h in range(3):
            gates = []
            for n in range(5):
                logit = sum((position.to_gate.weight[h, f] * x[b, n, f]).item() for f in range(13)) + 0.7
                gates.append(1 / (1 + math.exp(-logit)))
            for i in range(5):
                for j in range(i + 1):
                    expected = sum(math.log(gate) for gate in gates[j + 1 : i + 1])
                    assert bias[b, h, i, j].item() == pytest.approx(expected, abs=1e-6)


def test_forgetting_halves_at_each_token_to_start_with() -> None:
    position = Forgetting(shape())
    torch.nn.init.zeros_(position.to_gate.weight)
    bias = dense_bias(position, torch.randn(1, 5, 13), 3)
    assert bias[0, 1, 4, 1].exp().item() == pytest.approx(1 / 8)


@pytest.mark.parametrize("given", [{"causal": False}, {"causal": False, "context_dim": 5}])
def test_forgetting_refuses_attention_without_a_past(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"position: Forgetting .* causal self-attention only"):
        Forgetting(AttentionShape(dim=13, heads=3, kv_heads=3, dim_head=6, **given))


def test_a_position_without_bias_says_so() -> None:
    index = torch.zeros(1, dtype=torch.long)
    with pytest.raises(TypeError, match="Rotary has no bias"):
        partial(Rotary, rotary_dim=2)(shape()).bias(index, index, index, index, None)


@pytest.mark.parametrize("causal", [True, False])
def test_hard_alibi_hides_what_is_outside_the_window_of_a_head(causal: bool) -> None:
    bias = dense_bias(HardALiBi(shape(heads=4), windows=[1, 3]), torch.zeros(1, 7, 13), 4, causal)
    seen = bias == 0
    assert seen[0, 0].equal(torch.eye(7, dtype=torch.bool))
    assert seen[0, 1, 4].tolist() == [False, False, True, True, True, True, True]
    assert seen[0, 2:].all() and set(bias.unique().tolist()) == {0.0, -1e4}


def test_hard_alibi_gives_half_of_the_heads_a_window_by_default() -> None:
    assert HardALiBi(shape(heads=5)).windows.tolist() == [1.0, 2.0, math.inf, math.inf, math.inf]
    with pytest.raises(ValueError, match="position: HardALiBi has 4 windows, but there are only 3 heads"):
        HardALiBi(shape(), windows=[1, 1, 1, 1])
    with pytest.raises(ValueError, match="position: HardALiBi has window 0, which must be at least 1"):
        HardALiBi(shape(), windows=[0])


@pytest.mark.parametrize("causal", [True, False])
def test_relative_projection_mixes_curves_by_the_token_of_the_query(causal: bool) -> None:
    position = RelativeProjection(shape(causal=causal), num_curves=2, num_distances=4)
    x = torch.randn(2, 7, 13)
    bias = dense_bias(position, x, 3, causal)
    weights = (x @ position.to_weights.weight.T).unflatten(-1, (3, 2))
    ahead = 0 if causal else 3
    for b in range(2):
        for h in range(3):
            for i in range(7):
                for j in range(i + 1 if causal else 7):
                    far = i - j >= 4 or j - i > ahead
                    expected = 0.0 if far else (weights[b, i, h] @ position.curves[:, i - j + ahead]).item()
                    assert bias[b, h, i, j].item() == pytest.approx(expected, abs=1e-6), (i, j)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_path_reflects_each_key_by_the_tokens_after_it(kv_heads: int) -> None:
    sizes = AttentionShape(dim=13, heads=2, kv_heads=kv_heads, dim_head=3)
    position, x = PaTH(sizes).double(), torch.randn(1, 6, 13, dtype=torch.float64)
    q, k = torch.randn(2, 1, 2, 6, 3, dtype=torch.float64).unbind()
    where = sequence(6)
    added = position.pairwise(q @ k.mT, q, k, where, position.prepare(x, where, None, None, Trace()), 3**-0.5)
    directions = (x @ position.to_direction.weight.T).view(6, kv_heads, 3)
    betas = 2 * position.to_beta(x)[0].sigmoid()
    for h in range(2):
        g = h // (2 // kv_heads)
        for j in range(6):
            key = k[0, h, j]
            for i in range(j, 6):
                if i > j:
                    w = directions[i, g] / directions[i, g].norm()
                    key = key - betas[i, g] * w * (w @ key)
                expected = (q[0, h, i] @ (key - k[0, h, j])).item() / 3**0.5
                assert added[0, h, i, j].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("given", [{"causal": False}, {"causal": False, "context_dim": 5}])
def test_path_refuses_later_keys(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"position: PaTH .*, so it serves causal self-attention only; choose another"):
        PaTH(AttentionShape(dim=13, heads=3, kv_heads=3, dim_head=6, **given))


def mlp_by_hand(mlp: DistanceMLP, number: float) -> list[float]:
    """Compute a bias for each head feature by feature, with SiLU."""
    x = [number * s + o for s, o in zip(mlp.slope.tolist(), mlp.offset.tolist(), strict=True)]
    layers = [(linear.weight.tolist(), linear.bias.tolist()) for linear in mlp.hidden]
    layers.append((mlp.to_bias.weight.tolist(), [0.0] * mlp.to_bias.out_features))
    for weight, bias in layers:
        active = [each / (1 + math.exp(-each)) for each in x]
        x = [sum(w * a for w, a in zip(row, active, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
    return x


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("log_distance", [True, False])
def test_dynamic_bias_is_an_mlp_of_the_signed_distance(causal: bool, log_distance: bool) -> None:
    position = DynamicBias(shape(causal=causal), hidden_dim=5, log_distance=log_distance)
    bias = dense_bias(position, torch.zeros(1, 7, 13), 3, causal)
    for i, j in ((6, 1), (4, 4), (3, 2)) if causal else ((6, 1), (1, 6), (3, 3)):
        read = math.copysign(math.log(1 + abs(i - j)), i - j) if log_distance else i - j
        assert bias[0, :, i, j].tolist() == pytest.approx(mlp_by_hand(position.mlp, read), abs=1e-5)


def test_dynamic_bias_reads_positions_of_the_caller() -> None:
    position = DynamicBias(shape(causal=False), hidden_dim=5, norm=LayerNorm)
    inputs = Inputs(positions=torch.tensor([[5, 900, 2]]))
    where = Where.from_sequence(3, causal=False, inputs=inputs, lengths=None, device=torch.device("cpu"))
    prepared = position.prepare(torch.zeros(1, 3, 13), where, None, None, Trace())
    read = torch.tensor([5.0 - 900.0, 900.0 - 2.0])
    expected = position.mlp(read.sign() * read.abs().log1p())
    torch.testing.assert_close(prepared[0, :, [0, 1], [1, 2]].T, expected)
    assert position.pad(prepared, 2, 1).shape == (1, 3, 5, 4)


def test_dynamic_bias_distinguishes_far_distances_in_bfloat16() -> None:
    position = DynamicBias(shape(), hidden_dim=5, log_distance=False).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        far = position.prepare(torch.zeros(1, 400, 13), sequence(400), None, None, Trace())[1]
    assert far.dtype == torch.float32 and not far[300].equal(far[301])
    assert DynamicBias(shape()).mlp.to_bias.in_features == 3


@pytest.mark.parametrize("option", ["hidden_dim", "hidden_layers"])
def test_dynamic_bias_refuses_an_empty_mlp(option: str) -> None:
    with pytest.raises(ValueError, match=f"position: DynamicBias has {option} 0, which must be at least 1"):
        DynamicBias(shape(), **{option: 0})


def test_distances_have_no_condition() -> None:
    with pytest.raises(ValueError, match=r"position: the norm AdaptiveRMSNorm reads Inputs\(condition=.*; choose"):
        DynamicBias(shape(), norm=partial(AdaptiveRMSNorm, condition_dim=3))


@pytest.mark.parametrize("causal", [True, False])
def test_fire_reads_the_distance_relative_to_the_query(causal: bool) -> None:
    position = FIRE(shape(causal=causal), threshold=4.0)
    with torch.no_grad():
        position.c.fill_(0.3)
    bias = dense_bias(position, torch.zeros(1, 9, 13), 3, causal)
    # Below the threshold of 4, the distance is relative to 4.
    for i, j, relative_to in ((2, 1, 4), (8, 1, 8), (5, 5, 5)):
        read = math.log(1 + 0.3 * (i - j)) / math.log(1 + 0.3 * relative_to)
        assert bias[0, :, i, j].tolist() == pytest.approx(mlp_by_hand(position.mlp, read), abs=1e-4)


@pytest.mark.parametrize(
    ("option", "rule"), [("hidden_dim", "at least 1"), ("c_init", "above 0"), ("threshold", "above 0")]
)
def test_fire_refuses_options_out_of_range(option: str, rule: str) -> None:
    value = 0 if option == "hidden_dim" else 0.0
    with pytest.raises(ValueError, match=rf"position: FIRE has {option} {value}, which must be {rule}"):
        FIRE(shape(), **{option: value})


@pytest.mark.parametrize("option", ["num_curves", "num_distances"])
def test_relative_projection_refuses_empty_curves(option: str) -> None:
    with pytest.raises(ValueError, match=f"position: RelativeProjection has {option} 0, which must be at least 1"):
        RelativeProjection(shape(), **{option: 0})


def test_combined_rotates_in_order_and_adds_biases() -> None:
    turn = partial(Rotary, rotary_dim=2, base=7.0)
    position = Combined(shape(), positions=[Rotary, ALiBi, Forgetting, turn]).double()
    alibi, forgetting = position.parts[1:3]
    x, at = torch.randn(2, 5, 13, dtype=torch.float64), torch.arange(5)[None]
    expected = dense_bias(alibi, x, 3) + dense_bias(forgetting, x, 3)
    torch.testing.assert_close(dense_bias(position, x, 3), expected, check_dtype=False)
    q = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    for rotate in ("rotate_queries", "rotate_keys"):
        once = getattr(Rotary(shape()), rotate)(q, at)
        torch.testing.assert_close(getattr(position, rotate)(q, at), getattr(turn(shape()), rotate)(once, at))


def test_combined_is_what_its_parts_are() -> None:
    def describe(*positions: type[Position]) -> tuple[bool, bool, bool, bool, int]:
        made = Combined(shape(), positions=positions)
        return made.biased, made.paired, made.looks_back, made.per_row, len(made.backends)

    assert describe(Rotary) == (False, False, False, False, 3)
    assert describe(Rotary, ALiBi) == (True, False, False, False, 3)
    assert describe(ALiBi, Forgetting) == (True, False, True, True, 3)
    assert describe(Contextual, ALiBi) == (True, True, True, False, 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "factory",
    [
        RelativeBias,
        SharedRelativeBias,
        DynamicBias,
        FIRE,
        partial(RelativeProjection, num_distances=4),
        RelativeProjection,
        partial(Combined, positions=[ALiBi, RelativeBias, partial(RelativeProjection, num_distances=3)]),
    ],
)
def test_the_bias_of_all_pairs_is_that_of_each(factory: Callable[[AttentionShape], Position], causal: bool) -> None:
    position, x, where = factory(shape(causal=causal)), torch.randn(2, 7, 13), sequence(7, causal)
    prepared = position.prepare(x, where, None, None, position.share(Trace()))
    b, i, j = where.build_indices(2)
    b = b if position.per_row else b[:1]
    each = position.bias(b, torch.arange(3).view(1, -1, 1, 1), i, j, prepared)
    whole = position.dense(prepared)
    assert whole.shape == (2 if position.per_row else 1, 3, 7, 7)
    seen = where.dense()
    torch.testing.assert_close(whole.masked_fill(~seen, 0.0), each.masked_fill(~seen, 0.0))


def test_positions_off_the_diagonals_have_no_faster_bias() -> None:
    position, documents = RelativeBias(shape()), Inputs(documents=torch.tensor([[0, 0, 1]]))
    for inputs in (documents, Inputs(positions=torch.tensor([[2, 0, 1]])), Inputs(visible_prefix=torch.tensor([2]))):
        where = Where.from_sequence(3, causal=True, inputs=inputs, lengths=None, device=torch.device("cpu"))
        assert position.dense(where) is None
    assert ALiBi(shape()).dense(sequence(3)) is None


def test_combined_refuses_an_empty_list() -> None:
    with pytest.raises(ValueError, match="position: Combined has an empty list of positions; give at least one"):
        Combined(shape(), positions=[])
    rule = "position: Combined has RandomizedPositions, which draws .*; give RandomizedPositions the Combined, as its"
    with pytest.raises(ValueError, match=rule):
        Combined(shape(), positions=[RandomizedPositions, ALiBi])
    RandomizedPositions(shape(), position=partial(Combined, positions=[Rotary, ALiBi]))
