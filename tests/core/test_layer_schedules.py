"""Options by layer: lines and lists, in attention and in feedforwards."""

from functools import partial

import pytest
from catalogue import DIM_HEAD, attention, decoder

from lightning_xt.core.layer_schedules import OptionSchedule, schedule_options
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.layerwise_attention import LayerwiseAttention
from lightning_xt.nn.feedforward.feed_forward_cycle import FeedForwardCycle
from lightning_xt.nn.feedforward.layerwise_feed_forward import LayerwiseFeedForward
from lightning_xt.nn.feedforward.mixture_of_experts import MixtureOfExperts
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.feedforward.nested_mlp import NestedMLP
from lightning_xt.nn.feedforward.swiglu import SwiGLU
from lightning_xt.nn.score_mods.residual_scores import ResidualScores
from lightning_xt.nn.value_mods.value_residual import ValueResidual
from lightning_xt.training.language_model import LanguageModel


def over_depth(options: OptionSchedule, depth: int, multiple: int = 1) -> list[dict[str, int | float | None]]:
    shapes = [LayerShape(dim=8, layer=layer, depth=depth) for layer in range(depth)]
    return [schedule_options("attention: X", partial(Attention, heads=2), options, multiple, at) for at in shapes]


def test_two_values_are_the_ends_of_a_line() -> None:
    made = over_depth({"heads": [4, 8], "dropout": [0.0, 0.2], "window": [100, 20]}, 5)
    assert [each["heads"] for each in made] == [4, 5, 6, 7, 8]
    assert [each["window"] for each in made] == [100, 80, 60, 40, 20]
    assert [each["dropout"] for each in made] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert over_depth({"heads": [4, 8]}, 1) == [{"heads": 4}]


def test_whole_numbers_are_rounded_to_a_multiple() -> None:
    assert [each["window"] for each in over_depth({"window": [100, 200]}, 3, multiple=64)] == [128, 128, 192]
    assert [each["window"] for each in over_depth({"window": [1, 100]}, 3, multiple=64)] == [64, 64, 128]


def test_a_line_may_begin_or_end_at_zero() -> None:
    assert [each["memory"] for each in over_depth({"memory": [0, 4]}, 3)] == [0, 2, 4]
    assert [each["memory"] for each in over_depth({"memory": [8, 0]}, 4, multiple=4)] == [8, 4, 4, 0]
    recipe = partial(NestedMLP, hidden_dim=16)
    model = decoder(
        depth=4, feedforward=partial(LayerwiseFeedForward, recipe=recipe, options={"halvings": [0, 3]})
    ).eval()
    layers = [model.stack.sublayers[f"{layer}_feedforward"].branch.feedforward.feedforward for layer in range(4)]
    assert [each.kept for each in layers] == [16, 8, 4, 2]
    with pytest.raises(ValueError, match=r"^attention has memory -1, which must be at least 0"):
        decoder(attention=partial(LayerwiseAttention, recipe=attention(), options={"memory": [-1, -1]}))


def test_as_many_values_as_layers_are_those_of_the_layers() -> None:
    assert [each["window"] for each in over_depth({"window": [64, 64, None, 7]}, 4, multiple=8)] == [64, 64, None, 7]
    assert [each["window"] for each in over_depth({"window": [64, None]}, 2)] == [64, None]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"windw": [1, 2]}, "attention: X: unknown option 'windw'; did you mean window?"),
        ({"window": [1, None]}, r"has window \[1, None\], which must be two numbers, for .* of the 3 layer\(s\)$"),
        ({"window": []}, r"has window \[\], which must be two numbers"),
        ({"window": [1, 2, 3, 4]}, r"has window \[1, 2, 3, 4\], which must be two numbers"),
    ],
)
def test_values_that_are_refused(options: OptionSchedule, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        over_depth(options, 3)


def test_layers_of_attention_get_their_options() -> None:
    recipe = partial(Attention, dim_head=DIM_HEAD, kv_heads=2)
    model = decoder(
        depth=3, attention=partial(LayerwiseAttention, recipe=recipe, options={"heads": [2, 6], "window": [3, None, 5]})
    )
    shapes = [model.stack.sublayers[f"{layer}_attention"].branch.mixer for layer in range(3)]
    assert [(each.shape.heads, each.window) for each in shapes] == [(2, 3), (4, None), (6, 5)]
    with pytest.raises(ValueError, match=r"^attention: LayerwiseAttention has multiple 0, which must be at least 1$"):
        decoder(attention=partial(LayerwiseAttention, recipe=Attention, options={}, multiple=0))


def test_what_layers_leave_to_others_is_checked_through_the_schedule() -> None:
    """Layers of other sizes cannot use the values, or the scores, of the first one."""
    for part, problem in (
        ({"value_mods": [ValueResidual]}, "ValueResidual"),
        ({"score_mods": [ResidualScores]}, "heads"),
    ):
        recipe = partial(Attention, dim_head=DIM_HEAD, **part)
        with pytest.raises(ValueError, match=problem):
            decoder(attention=partial(LayerwiseAttention, recipe=recipe, options={"heads": [2, 4]}))


def test_feedforwards_get_their_options_or_their_recipes() -> None:
    layerwise = decoder(
        depth=3, feedforward=partial(LayerwiseFeedForward, recipe=SwiGLU, options={"hidden_dim": [10, 30]}, multiple=4)
    )
    widths = [layerwise.stack.sublayers[f"{layer}_feedforward"].branch.feedforward for layer in range(3)]
    assert [each.feedforward.to_out.in_features for each in widths] == [12, 20, 32]
    cycle = decoder(depth=3, feedforward=partial(FeedForwardCycle, recipes=[MLP, MixtureOfExperts]))
    kinds = [cycle.stack.sublayers[f"{layer}_feedforward"].branch.feedforward.feedforward for layer in range(3)]
    assert [type(each) for each in kinds] == [MLP, MixtureOfExperts, MLP]
    for recipes, problem in (([], "has an empty list of recipes"), ([MLP] * 3, "has 3 recipes, but there are only 2")):
        with pytest.raises(ValueError, match=f"^feedforward: FeedForwardCycle {problem}"):
            decoder(feedforward=partial(FeedForwardCycle, recipes=recipes))


def test_a_config_names_options_by_layer() -> None:
    by_layer = {"recipe": {"class_path": "Attention", "init_args": {"dim_head": 8}}, "options": {"heads": [2, 4]}}
    attention_config = {"class_path": "LayerwiseAttention", "init_args": by_layer}
    model = LanguageModel.from_config({"decoder": {"dim": 16, "depth": 3, "attention": attention_config}})
    mixers = [model.decoder.stack.sublayers[f"{layer}_attention"].branch.mixer for layer in range(3)]
    assert [(each.shape.heads, each.shape.dim_head) for each in mixers] == [(2, 8), (3, 8), (4, 8)]
    by_layer["options"] = {"head": [2, 4]}
    with pytest.raises(ValueError, match=r"attention: LayerwiseAttention: unknown option 'head'; did you mean heads"):
        LanguageModel.from_config({"decoder": {"dim": 16, "depth": 3, "attention": attention_config}})


def test_no_options_by_layer_change_nothing() -> None:
    plain, scheduled = (
        decoder(attention=each)
        for each in (attention(), partial(LayerwiseAttention, recipe=attention(), options={"window": [None, None]}))
    )
    assert len(plain.state_dict()) == len(scheduled.state_dict())
