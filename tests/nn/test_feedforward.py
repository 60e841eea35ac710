"""Feedforwards one token and one feature at a time."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import CONDITION, decoder, example
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.generation.models.quantized_weights import convert_weights
from lightning_xt.nn.activations.relu_squared import ReLUSquared
from lightning_xt.nn.feedforward.deep_embed import DeepEmbed
from lightning_xt.nn.feedforward.expert_blocks import ExpertBlocks
from lightning_xt.nn.feedforward.gated_mlp import GatedMLP
from lightning_xt.nn.feedforward.geglu import GEGLU
from lightning_xt.nn.feedforward.glu import GLU
from lightning_xt.nn.feedforward.layerwise_feed_forward import LayerwiseFeedForward
from lightning_xt.nn.feedforward.mixture_of_experts import MixtureOfExperts
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.feedforward.nested_mlp import NestedMLP
from lightning_xt.nn.feedforward.reglu import ReGLU
from lightning_xt.nn.feedforward.situ_glu import SiTUGLU
from lightning_xt.nn.feedforward.swiglu import SwiGLU
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.passes.exit_loops import ExitLoops
from lightning_xt.nn.passes.recycling import Recycling
from lightning_xt.nn.segments.segment_recurrence import SegmentRecurrence

SHAPE = LayerShape(dim=5)


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def affine(weight: Tensor, bias: Tensor | None, x: list[float]) -> list[float]:
    return [
        sum(w * f for w, f in zip(row.tolist(), x, strict=True)) + (0.0 if bias is None else bias[k].item())
        for k, row in enumerate(weight)
    ]


@pytest.mark.parametrize("bias", [False, True])
def test_mlp(bias: bool) -> None:
    mlp = MLP(SHAPE, hidden_dim=7, activation=ReLUSquared, bias=bias).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    out = mlp(x)
    for b in range(2):
        for n in range(3):
            hidden = affine(mlp.to_hidden.weight, mlp.to_hidden.bias, x[b, n].tolist())
            expected = affine(mlp.to_out.weight, mlp.to_out.bias, [max(f, 0) ** 2 for f in hidden])
            assert out[b, n].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("variant", "bend"), [(GEGLU, gelu), (SwiGLU, silu), (ReGLU, lambda x: max(x, 0.0))])
def test_gated(variant: type[GLU], bend: Callable[[float], float], bias: bool) -> None:
    glu = variant(SHAPE, hidden_dim=7, bias=bias).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    out = glu(x)
    for b in range(2):
        for n in range(3):
            both = affine(glu.to_hidden.weight, glu.to_hidden.bias, x[b, n].tolist())
            gated = [bend(gate) * value for gate, value in zip(both[:7], both[7:], strict=True)]
            expected = affine(glu.to_out.weight, glu.to_out.bias, gated)
            assert out[b, n].tolist() == pytest.approx(expected)


def test_default_widths() -> None:
    assert MLP(SHAPE).to_hidden.out_features == 20
    # 8/3 of 512 is 1365.33, and 1368 = 171 * 8.
    assert SwiGLU(LayerShape(dim=512)).to_out.in_features == 1368
    assert GEGLU(SHAPE).to_out.in_features == 16
    mlp, glu = (sum(p.numel() for p in v(LayerShape(dim=768)).parameters()) for v in (MLP, SwiGLU))
    assert mlp == glu


@pytest.mark.parametrize("variant", [MLP, GEGLU, SwiGLU])
def test_dropout_drops_hidden_features_in_training_only(variant: type[MLP | GLU]) -> None:
    layer = variant(SHAPE, hidden_dim=1, dropout=0.5)
    x = torch.randn(1, 1000, 5)
    kept = layer.eval()(x)
    dropped = layer.train()(x)
    zero = (dropped == 0).all(-1)
    assert 400 < int(zero.sum()) < 600
    torch.testing.assert_close(dropped[~zero], 2 * kept[~zero])


def build_identity(variant: type[GLU], **options: object) -> GLU:
    """Return a gated feedforward of one feature, whose gate is x, the gated half -2 x and the output the product."""
    layer = variant(LayerShape(dim=1), hidden_dim=1, **options)
    with torch.no_grad():
        layer.to_hidden.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        layer.to_out.weight.fill_(1.0)
    return layer


def test_a_gated_mlp_has_any_activation() -> None:
    layer = build_identity(GatedMLP, activation=ReLUSquared)
    assert layer(torch.tensor([[[3.0], [-3.0]]])).flatten().tolist() == [9.0 * -6.0, 0.0]


def test_situ_glu_bounds_both_factors() -> None:
    layer = build_identity(SiTUGLU)
    for x in (0.5, -1.0, 30.0):
        expected = 4 * math.tanh(x / 4) / (1 + math.exp(-x)) * 25 * math.tanh(-2 * x / 25)
        assert layer(torch.tensor([[[x]]])).item() == pytest.approx(expected, rel=1e-5)
    assert layer(torch.tensor([[[1e6]]])).item() == pytest.approx(-100.0)


def test_a_hidden_gain_multiplies_the_gated_features() -> None:
    layer = build_identity(ReGLU, hidden_gain=True)
    assert layer(torch.tensor([[[3.0]]])).item() == -18.0
    with torch.no_grad():
        layer.gain.fill_(0.5)
    assert layer(torch.tensor([[[3.0]]])).item() == -9.0


def test_an_mlp_bounds_its_features_before_the_activation() -> None:
    layer = MLP(LayerShape(dim=1), hidden_dim=1, activation=ReLUSquared, hidden_cap=2.0)
    with torch.no_grad():
        layer.to_hidden.weight.fill_(1.0)
        layer.to_out.weight.fill_(1.0)
    assert layer(torch.tensor([[[3.0]]])).item() == pytest.approx((2 * math.tanh(1.5)) ** 2)


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: SiTUGLU(SHAPE, gate_cap=0.0), "SiTUGLU has gate_cap 0.0, which must be above 0"),
        (lambda: SiTUGLU(SHAPE, gated_cap=-1.0), "SiTUGLU has gated_cap -1.0, which must be above 0"),
        (lambda: MLP(SHAPE, hidden_cap=0.0), "MLP has hidden_cap 0.0, which must be above 0"),
        (
            lambda: MixtureOfExperts(SHAPE, num_experts=1),
            "MixtureOfExperts has num_experts 1, which must be at least 2",
        ),
        (lambda: MixtureOfExperts(SHAPE, top_k=9), "MixtureOfExperts has top_k 9, which must be from 1 to 8"),
        (
            lambda: MixtureOfExperts(SHAPE, balance_weight=-1.0),
            "MixtureOfExperts has balance_weight -1.0, which must be at least 0",
        ),
        (
            lambda: MixtureOfExperts(SHAPE, router_z_weight=-1.0),
            "MixtureOfExperts has router_z_weight -1.0, which must be at least 0",
        ),
        (lambda: GatedMLP(SHAPE, hidden_dim=0), "GatedMLP has hidden_dim 0, which must be at least 1"),
    ],
)
def test_options_outside_their_range_are_refused(build: Callable[[], object], rule: str) -> None:
    with pytest.raises(ValueError, match=f"feedforward: {rule}"):
        build()


@pytest.mark.parametrize("variant", [MLP, SwiGLU])
def test_hidden_features_are_normed_before_the_last_map(variant: type[MLP | GLU]) -> None:
    plain, normed = (variant(SHAPE, hidden_dim=7, **options) for options in ({}, {"hidden_norm": RMSNorm}))
    normed.load_state_dict(plain.state_dict(), strict=False)
    hidden: list[Tensor] = []
    plain.to_out.register_forward_hook(lambda module, args, out: hidden.append(args[0]))
    x = torch.randn(2, 3, 5)
    plain(x)
    root = hidden[0].square().mean(dim=-1, keepdim=True).add(1e-6).sqrt()
    torch.testing.assert_close(normed(x), plain.to_out(hidden[0] / root))


def test_a_hidden_norm_may_read_the_inputs() -> None:
    recipe = partial(SwiGLU, hidden_dim=7, hidden_norm=partial(AdaptiveRMSNorm, condition_dim=CONDITION))
    tokens, inputs = example(2, 4, torch.float32)
    assert decoder(feedforward=recipe)(tokens, inputs=inputs).shape == (2, 4, 11)
    with pytest.raises(ValueError, match=r"AdaptiveRMSNorm needs Inputs\(condition=...\)"):
        decoder(feedforward=recipe)(tokens)


def sequence(n: int, hidden: Tensor | None = None) -> Where:
    inputs = Inputs(hidden_tokens=hidden)
    return Where.from_sequence(n, causal=True, inputs=inputs, lengths=None, device=torch.device("cpu"))


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_experts_are_mixed_by_their_probabilities(top_k: int) -> None:
    recipe = partial(SwiGLU, hidden_dim=7, bias=True)
    layer = MixtureOfExperts(SHAPE, expert=recipe, num_experts=5, top_k=top_k).double()
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    out = layer(x)
    torch.testing.assert_close(layer.eval()(x), out)
    # Few tokens are read by all experts.
    torch.testing.assert_close(layer(x[:1, :3]), out[:1, :3])
    for b in range(2):
        for n in range(9):
            probabilities = (layer.router.weight @ x[b, n]).softmax(dim=-1)
            best = probabilities.argsort(descending=True)[:top_k].tolist()
            total = 1.0 if top_k == 1 else sum(probabilities[e] for e in best)
            expected = sum(probabilities[e] / total * layer.experts[e](x[b, [n]][None])[0, 0] for e in best)
            torch.testing.assert_close(out[b, n], expected)


def test_experts_of_int8_matrices_run_one_by_one() -> None:
    model = decoder(dim=32, feedforward=partial(MixtureOfExperts, num_experts=3))
    tokens = torch.randint(0, 11, (2, 9))
    torch.nn.init.normal_(model.head.to_logits.weight)
    expected = model.eval()(tokens)
    error = (convert_weights(model, "int8")(tokens).float() - expected).norm() / expected.norm()
    assert error < 0.1


def test_any_number_of_tokens_may_choose_an_expert() -> None:
    for chosen in ([[2], [2], [2], [2], [2], [2], [2]], [[0], [3], [3], [1], [0], [3], [3]], [[1]]):
        assigned = torch.tensor(chosen)
        blocks = ExpertBlocks.sort(assigned, 4)
        x = torch.arange(1.0, len(chosen) + 1).unsqueeze(-1)
        spread = blocks.spread(x)
        assert torch.equal(blocks.collect(spread)[:, 0], x)
        assert len(blocks.places.unique()) == len(chosen)
        assert torch.equal(blocks.owners[blocks.places // blocks.rows], assigned)


def test_experts_of_equal_use_have_a_balance_loss_of_one() -> None:
    layer = MixtureOfExperts(LayerShape(dim=2), expert=partial(MLP, hidden_dim=3), num_experts=2, top_k=1)
    with torch.no_grad():
        layer.router.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 0.0]]])
    high, low = math.exp(2) / (math.exp(2) + 1), 1 / (math.exp(2) + 1)
    hidden = torch.tensor([[False, False, True, True]])
    for where, inputs in (
        (sequence(4, hidden), Inputs(hidden_tokens=hidden)),
        (sequence(4), Inputs(scored=~hidden)),
    ):
        losses = {loss.name: loss for loss in layer.transform(x, where, inputs, Trace())[1].losses}
        assert losses["balance_loss"].value.item() == pytest.approx(2 * (0.5 * (high + low) / 2 * 2))
        assert losses["router_z_loss"].value.item() == pytest.approx(math.log(math.exp(2) + 1) ** 2)
        assert (losses["balance_loss"].weight, losses["router_z_loss"].weight) == (0.01, 0.001)
    # All four: the first expert has three of four tokens.
    losses = {loss.name: loss for loss in layer.transform(x, sequence(4), Inputs(), Trace())[1].losses}
    sure = math.exp(9) / (math.exp(9) + 1)
    first = (high + low + 2 * sure) / 4
    assert losses["balance_loss"].value.item() == pytest.approx(2 * (0.75 * first + 0.25 * (1 - first)))
    assert layer.eval().transform(x, sequence(4), Inputs(), Trace())[1].losses == ()


def test_a_deep_embedding_multiplies_the_output_by_the_gain_of_the_token() -> None:
    layer = DeepEmbed(LayerShape(dim=5, vocab_size=11), feedforward=partial(MLP, hidden_dim=7))
    x, tokens = torch.randn(1, 2, 5), torch.tensor([[3, 10]])
    out, _ = layer.transform(x, sequence(2), Inputs(tokens=tokens), Trace())
    torch.testing.assert_close(out, layer.feedforward(x) * (1 + layer.table.weight[[3, 10]]))
    with pytest.raises(TypeError, match="DeepEmbed reads token ids, so it cannot be called with vectors only"):
        layer(x)


def test_experts_that_read_token_ids_are_refused() -> None:
    rule = (
        "^feedforward: MixtureOfExperts has experts of DeepEmbed, which reads token ids, .* put the experts into Deep"
    )
    with pytest.raises(ValueError, match=rule):
        MixtureOfExperts(SHAPE, expert=DeepEmbed)
    assert DeepEmbed(LayerShape(dim=5, vocab_size=5), feedforward=MixtureOfExperts).feedforward.top_k == 2


@torch.no_grad()
def test_a_shared_expert_is_added_for_every_token() -> None:
    """Tokens 2 and -3: the router sends each to the expert of its sign, 10 x or 100 x; the shared expert adds x."""
    layer = MixtureOfExperts(
        LayerShape(dim=1), expert=partial(MLP, hidden_dim=1, activation=ReLUSquared), num_experts=2, top_k=1,
        shared=partial(MLP, hidden_dim=1, activation=ReLUSquared),
    )  # fmt: skip
    layer.router.weight.copy_(torch.tensor([[100.0], [-100.0]]))
    for expert, factors in zip((*layer.experts, layer.shared), ((1.0, 10.0), (-1.0, 100.0), (-1.0, 1.0)), strict=True):
        expert.to_hidden.weight.fill_(factors[0])
        expert.to_out.weight.fill_(factors[1])
    x = torch.tensor([[[2.0], [-3.0]]])
    expected = [[[10 * 4.0], [100 * 9.0 + 9.0]]]
    assert layer(x).tolist() == expected
    out, trace = layer.train().transform(x, sequence(2), Inputs(), Trace())
    assert out.tolist() == expected and {loss.name for loss in trace.losses} == {"balance_loss", "router_z_loss"}
    tables = MixtureOfExperts(LayerShape(dim=1, vocab_size=3), shared=DeepEmbed)
    assert tables.shared.table.num_embeddings == 3


def halve(feedforward: NestedMLP, halvings: int) -> NestedMLP:
    """Return the feedforward of half the width, that many times."""
    half = NestedMLP(SHAPE, hidden_dim=12, bias=True, widths=3, halvings=halvings)
    half.load_state_dict(feedforward.state_dict())
    return half.eval()


def test_nested_widths_are_the_first_features() -> None:
    whole, x = NestedMLP(SHAPE, hidden_dim=12, bias=True, widths=3), torch.randn(2, 7, 5)
    for halvings, width in ((0, 12), (1, 6), (2, 3)):
        smaller = MLP(SHAPE, hidden_dim=width, bias=True)
        with torch.no_grad():
            smaller.to_hidden.weight.copy_(whole.to_hidden.weight[:width])
            smaller.to_hidden.bias.copy_(whole.to_hidden.bias[:width])
            smaller.to_out.weight.copy_(whole.to_out.weight[:, :width])
            smaller.to_out.bias.copy_(whole.to_out.bias)
        torch.testing.assert_close(halve(whole, halvings)(x), smaller(x))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"passes": partial(ExitLoops, passes=3)},
        {"passes": partial(Recycling, passes=3)},
        {"segments": partial(SegmentRecurrence, length=3)},
    ],
)
def test_training_draws_one_nested_width_for_all_layers(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, (tokens, _) = (
        decoder(feedforward=partial(NestedMLP, hidden_dim=12, widths=3), depth=3, **options).train(),
        example(2, 7),
    )
    layers = [model.stack.sublayers[f"{layer}_feedforward"].branch.feedforward for layer in range(3)]
    found: list[int] = []
    for layer in layers:
        layer.dropout.register_forward_hook(lambda module, args, out: found.append(int((out[0, 0] != 0).sum())))
    seen = []
    with torch.no_grad():
        for _ in range(40):
            found.clear()
            model(tokens)
            seen.append(set(found))
    assert all(len(widths) == 1 for widths in seen), "layers drew different widths"
    assert set.union(*seen) == {12, 6, 3}


def test_layers_of_a_smaller_nested_model_may_differ() -> None:
    """Mix'n'Match: each layer has its own width in evaluation, and the weights are those of the whole model."""
    whole = decoder(depth=3, feedforward=partial(NestedMLP, hidden_dim=16))
    recipe = partial(NestedMLP, hidden_dim=16)
    mixed = decoder(
        depth=3, feedforward=partial(LayerwiseFeedForward, recipe=recipe, options={"halvings": [0, 2, 1]})
    ).eval()
    mixed.load_state_dict(
        {k.replace("branch.feedforward", "branch.feedforward.feedforward"): v for k, v in whole.state_dict().items()}
    )
    layers = [mixed.stack.sublayers[f"{layer}_feedforward"].branch.feedforward.feedforward for layer in range(3)]
    assert [each.kept for each in layers] == [16, 4, 8]
    assert mixed(example(2, 7)[0]).isfinite().all()


@pytest.mark.parametrize("halvings", [0, 1])
def test_nested_widths_decode_with_int8_weights(halvings: int) -> None:
    model = decoder(feedforward=partial(NestedMLP, hidden_dim=16, halvings=halvings)).eval()
    tokens, _ = example(2, 7)
    made = convert_weights(model, "int8")(tokens)
    assert made.isfinite().all()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"widths": 0}, "widths 0, which must be from 1 to 30"),
        ({"widths": 3, "halvings": 3}, "halvings 3, which must be from 0 to 2"),
        ({"hidden_dim": 7}, "hidden_dim 7, which must be at least 8"),
        ({"dropout": 1.0}, "dropout 1.0, which must be at least 0 and below 1"),
    ],
)
def test_nested_widths_that_are_refused(options: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^feedforward: NestedMLP has {rule}"):
        NestedMLP(SHAPE, **options)
