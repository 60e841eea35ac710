"""Value residual by hand, and the source of its values in a model."""

import math
from functools import partial

import pytest
import torch
from catalogue import DIM_HEAD, HEADS, VOCAB, attention, decoder, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.keys_values import KeysValues
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.contexts.given_context import GivenContext
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.layouts.standard import Standard
from lightning_xt.nn.normalizers.signed import Signed
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.score_mods.dynamic_heads import DynamicHeads
from lightning_xt.nn.score_mods.talking_heads import TalkingHeads
from lightning_xt.nn.value_mods.laser import Laser
from lightning_xt.nn.value_mods.value_embedding import ValueEmbedding
from lightning_xt.nn.value_mods.value_from_input import ValueFromInput
from lightning_xt.nn.value_mods.value_norm import ValueNorm
from lightning_xt.nn.value_mods.value_residual import ValueResidual
from lightning_xt.nn.value_mods.weighted_value_residual import WeightedValueResidual


def shape(layer: int) -> AttentionShape:
    return AttentionShape(dim=3, layer=layer, depth=3, heads=4, kv_heads=2, dim_head=5)


def test_the_first_layer_keeps_its_values() -> None:
    mod, v = ValueResidual(shape(0)), torch.randn(2, 2, 7, 5)
    assert list(mod.parameters()) == []
    assert mod(v, torch.randn(2, 7, 3), (), Inputs()) is v
    assert mod(v, torch.randn(2, 7, 3), (torch.randn_like(v),), Inputs()) is v  # called again by a looped model


def test_later_layers_mix_in_the_first_by_a_fraction_of_each_token_and_head() -> None:
    mod = ValueResidual(shape(2)).double()
    v, first, second = torch.randn(3, 2, 2, 7, 5, dtype=torch.float64)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    out = mod(v, x, (first, second), Inputs())
    for b in range(2):
        for g in range(2):
            for n in range(7):
                logit = sum((mod.to_share.weight[g, f] * x[b, n, f]).item() for f in range(3))
                own = 1 / (1 + math.exp(-logit - mod.to_share.bias[g].item()))
                for e in range(5):
                    expected = own * v[b, g, n, e].item() + (1 - own) * first[b, g, n, e].item()
                    assert out[b, g, n, e].item() == pytest.approx(expected)


def test_a_model_hands_on_the_values_its_first_layer_projected() -> None:
    model = randomise(lambda: decoder(depth=3, attention=attention(value_mods=[ValueResidual])))
    projected, given = [], []
    for sublayer in model.stack.sublayers.values():
        branch = sublayer.branch
        if not hasattr(branch, "value_mods"):
            continue
        branch.projection.to_qkv.register_forward_hook(lambda module, args, out: projected.append(out))
        branch.value_mods[0].register_forward_hook(lambda module, args, out: given.append(args[2]))
    model(torch.randint(0, VOCAB, (2, 7)))
    assert [len(earlier) for earlier in given] == [0, 1, 2]
    first = projected[0].unflatten(-1, (3, 4, 6))[:, :, 2].transpose(1, 2)
    torch.testing.assert_close(given[2][0], first)


@pytest.mark.parametrize(
    ("later", "theirs"), [({"kv_heads": 2}, "2 of width 6"), ({"dim_head": 3}, "4 of width 3")], ids=str
)
def test_cases_p8_refuses_layers_of_different_shapes_at_build(later: dict[str, int], theirs: str) -> None:
    recipes = [attention(value_mods=[ValueResidual]), attention(value_mods=[ValueResidual], position=None, **later)]
    with pytest.raises(ValueError, match=r"value_mods: ValueResidual .* 4 heads of width 6") as error:
        decoder(attention=partial(Cycle, recipes=recipes))
    assert f"layer 1 has {theirs}; give both layers the same kv_heads, dim_head and value_dim" in str(error.value)
    across = {"context": partial(GivenContext, dim=5), "cross_attention": partial(Cycle, recipes=recipes)}
    with pytest.raises(ValueError, match=r"value_mods: ValueResidual .* 4 heads of width 6"):
        decoder(**across)
    # Only layers that mix need the first one's shape.
    model = decoder(attention=partial(Cycle, recipes=[recipes[0], attention(**later)]))
    assert model(torch.zeros(1, 3, dtype=torch.long)).isfinite().all()
    latent = [attention(projection=Latent), recipes[0]]
    with pytest.raises(ValueError, match=r"values, 1 heads of width 6, but the attention of layer 1 has 4 of width 6"):
        decoder(attention=partial(Cycle, recipes=latent))


@pytest.mark.parametrize("layout", [Standard, Looped])
@pytest.mark.parametrize("mod", [ValueResidual, WeightedValueResidual])
def test_cases_p11_refuses_one_layer_even_if_it_is_looped(layout: type, mod: type) -> None:
    rule = rf"^value_mods: {mod.__name__} mixes .*, but there is one layer; raise depth, or omit {mod.__name__}$"
    with pytest.raises(ValueError, match=rule):
        decoder(depth=1, layout=layout, attention=attention(value_mods=[mod]))


def test_laser_takes_the_logarithm_of_gathered_exponentials() -> None:
    mod, v = Laser(shape(0), cap=3.0), torch.tensor([1.0, -2.0, 50.0]).view(1, 1, 3, 1)
    exponentials = mod(v, torch.zeros(1, 3, 3), (), Inputs())
    bounded = [3 * math.tanh(x / 3) for x in (1.0, -2.0, 50.0)]
    assert exponentials.flatten().tolist() == pytest.approx([math.exp(x) for x in bounded])
    gathered = torch.tensor([0.25, 0.25, 0.5]).view(1, 1, 1, 3) @ exponentials
    expected = math.log(0.25 * math.exp(bounded[0]) + 0.25 * math.exp(bounded[1]) + 0.5 * math.exp(bounded[2]))
    assert mod.restore(gathered).item() == pytest.approx(expected)
    assert mod.restore(torch.zeros(1, 1, 1, 1)).item() == 0.0, "a query that sees nothing"


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({"memory": 2}, "memory"),
        ({"normalizer": Signed}, "normalizer Signed"),
        ({"score_mods": [TalkingHeads]}, "score_mods TalkingHeads"),
        ({"score_mods": [DynamicHeads]}, "score_mods DynamicHeads"),
    ],
    ids=str,
)
def test_laser_refuses_what_may_be_negative(options: dict[str, object], other: str) -> None:
    with pytest.raises(
        ValueError, match=f"value_mods: Laser gathers numbers above 0 only, but those of {other} may be"
    ):
        decoder(attention=attention(value_mods=[Laser], **options))


def test_laser_stands_next_to_mixed_scores() -> None:
    mixed = partial(TalkingHeads, mix_weights=False)
    decoder(attention=attention(value_mods=[Laser], score_mods=[mixed]))


def test_laser_refuses_values_of_another_model() -> None:
    given = torch.zeros(1, HEADS, 2, DIM_HEAD)
    rule = r"value_mods: Laser gathers numbers above 0 only, but those of Inputs\(keys_values=...\) may be negative"
    with pytest.raises(ValueError, match=rule):
        decoder(attention=attention(value_mods=[Laser]))(
            torch.zeros(1, 3, dtype=torch.long), inputs=Inputs(keys_values=[KeysValues(given, given)])
        )


def test_value_norm_norms_each_head() -> None:
    v = torch.tensor([[3.0, 4.0], [0.0, 5.0]]).view(1, 2, 1, 2)
    mod = ValueNorm(AttentionShape(dim=3, heads=2, kv_heads=2, dim_head=7, value_dim=2))
    root = math.sqrt(12.5)
    expected = [3 / root, 4 / root, 0.0, 5 / root]
    assert mod(v, torch.zeros(1, 1, 3), (), Inputs()).flatten().tolist() == pytest.approx(expected)


def test_value_embedding_adds_a_vector_of_each_token_through_a_gate() -> None:
    mod = ValueEmbedding(AttentionShape(dim=3, heads=2, kv_heads=2, dim_head=2, vocab_size=11), num_features=2)
    v, x = torch.zeros(1, 2, 2, 2), torch.tensor([[[1.0, -2.0, 9.0], [0.0, 0.5, 9.0]]])
    inputs = Inputs(tokens=torch.tensor([[3, 10]]))
    plain = mod(v, x, (), inputs)
    for n, token in enumerate((3, 10)):
        assert plain[0, :, n].flatten().tolist() == mod.table.weight[token].tolist()
    with torch.no_grad():
        mod.to_gate.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    gates = [[2 / (1 + math.exp(-logit)) for logit in logits] for logits in ((1.0, -2.0), (0.0, 0.5))]
    for n, token in enumerate((3, 10)):
        expected = [gates[n][f // 2] * mod.table.weight[token, f].item() for f in range(4)]
        assert mod(v, x, (), inputs)[0, :, n].flatten().tolist() == pytest.approx(expected)


def test_value_embedding_needs_tokens_and_refuses_cross_attention() -> None:
    model = decoder(attention=attention(value_mods=[ValueEmbedding]))
    with pytest.raises(ValueError, match=r"ValueEmbedding reads token ids, which soft tokens do not have; omit"):
        model(torch.zeros(1, 3, dtype=torch.long), inputs=Inputs(prefix=torch.zeros(1, 2, 13)))
    recipe = attention(value_mods=[ValueEmbedding])
    with pytest.raises(
        ValueError, match="value_mods: ValueEmbedding serves self-attention only, but this is cross-att"
    ):
        decoder(cross_attention=recipe, context=partial(GivenContext, dim=5))


def test_value_from_input_maps_the_vector_that_the_first_layer_read() -> None:
    model = randomise(lambda: decoder(depth=2, attention=attention(value_mods=[ValueFromInput])))
    tokens, seen = torch.randint(0, VOCAB, (2, 7)), []
    mods = [mod for mod in model.modules() if isinstance(mod, ValueFromInput)]
    for mod in mods:
        mod.register_forward_hook(lambda module, args, out: seen.append((args[0], args[1], out)))
    model(tokens)
    for mod, (v, x, out) in zip(mods, seen, strict=True):
        added = (model.token_embedding(tokens) @ mod.to_values.weight.T).unflatten(-1, (4, 6)).transpose(1, 2)
        gate = 2 * (x[..., :12] @ mod.to_gate).sigmoid()
        torch.testing.assert_close(out, v + gate.mT[..., None] * added)


@pytest.mark.parametrize("learned", [False, True])
def test_weighted_value_residual_mixes_by_two_numbers(learned: bool) -> None:
    mod = WeightedValueResidual(shape(1), own_weight=0.25, first_weight=2.0, learned=learned)
    assert len(list(mod.parameters())) == learned
    v, first = torch.tensor(4.0).view(1, 1, 1, 1), torch.tensor(3.0).view(1, 1, 1, 1)
    assert mod(v, torch.zeros(1, 1, 3), (first,), Inputs()).item() == 7.0
    assert WeightedValueResidual(shape(0))(v, torch.zeros(1, 1, 3), (first,), Inputs()) is v


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: Laser(shape(0), cap=0.0), "Laser has cap 0.0, which must be above 0 and at most 80"),
        (lambda: Laser(shape(0), cap=90.0), "Laser has cap 90.0, which must be above 0 and at most 80"),
        (
            lambda: ValueEmbedding(shape(0), num_features=0),
            "ValueEmbedding has num_features 0, which must be at least 1",
        ),
        (
            lambda: ValueFromInput(shape(0), num_features=0),
            "ValueFromInput has num_features 0, which must be at least 1",
        ),
    ],
)
def test_options_outside_their_range_are_refused(build, rule: str) -> None:
    with pytest.raises(ValueError, match=f"value_mods: {rule}"):
        build()
