"""Value residual by hand, and the source of its values in a model."""

import math
from functools import partial

import pytest
import torch
from catalogue import VOCAB, attention, decoder, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.contexts.given_context import GivenContext
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.value_mods.value_residual import ValueResidual


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
    with pytest.raises(ValueError, match=r"values, 1 heads of width 6, but layer 1 has 4 of width 6"):
        decoder(attention=partial(Cycle, recipes=latent))


def test_cases_p11_refuses_one_layer_that_is_looped() -> None:
    message = (
        r"^value_mods: ValueResidual mixes .*, but one layer is called 2 times; raise depth, or omit ValueResidual$"
    )
    with pytest.raises(ValueError, match=message):
        decoder(depth=1, layout=Looped, attention=attention(value_mods=[ValueResidual]))
