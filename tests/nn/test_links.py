"""Links: what they are given, and each by hand."""

import math
from functools import partial

import pytest
import torch
from catalogue import VOCAB, context_options, crop, decoder, example, randomise
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.layouts.macaron import Macaron
from lightning_xt.nn.layouts.parallel import Parallel
from lightning_xt.nn.links.backout import Backout
from lightning_xt.nn.links.base import Earlier, Link
from lightning_xt.nn.links.depth_attention import DepthAttention
from lightning_xt.nn.links.input_lambdas import InputLambdas
from lightning_xt.nn.links.layer_mixture import LayerMixture
from lightning_xt.nn.links.mudd import MUDD
from lightning_xt.nn.links.output_soft_cap import OutputSoftCap
from lightning_xt.nn.links.reinjection import Reinjection
from lightning_xt.nn.links.u_net_skips import UNetSkips
from lightning_xt.nn.passes.recycling import Recycling
from lightning_xt.nn.residuals.hyper_connection import HyperConnection

SHAPE = LayerShape(dim=3)


class Watch(Link):
    """Link that changes nothing and records what it is given."""

    def __init__(self, shape: LayerShape, index: int, calls: int) -> None:
        super().__init__()
        self.built = (shape.layer, index, calls)
        self.streams: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.earlier: list[Earlier] = []

    def extend_stream(self, stream: Tensor, earlier: Earlier) -> Tensor:
        self.streams.append(stream)
        return stream

    def mix_input(self, x: Tensor, earlier: Earlier) -> Tensor:
        self.inputs.append(x)
        self.earlier.append(earlier)
        return x


def watches(model: nn.Module) -> list[Watch]:
    return [module for module in model.modules() if isinstance(module, Watch)]


def test_each_call_and_the_output_have_a_link_that_is_given_what_earlier_calls_read() -> None:
    model, tokens = randomise(lambda: decoder(links=[Watch], layout=Looped)), torch.randint(0, VOCAB, (2, 7))
    model(tokens)
    found = watches(model)
    assert [each.built for each in found] == [(i // 2 % 2, i, 8) for i in range(8)] + [(1, 8, 8)]
    read = [each.inputs[0] for each in found]
    torch.testing.assert_close(read[0], model.token_embedding(tokens))
    for index, each in enumerate(found):
        assert len(each.earlier[0]) == index
        assert all(mine is theirs for mine, theirs in zip(each.earlier[0], read, strict=False))


def test_what_a_link_adds_to_the_stream_stays_and_what_it_mixes_into_the_input_does_not() -> None:
    class Add(Link):
        def __init__(self, shape: LayerShape, index: int, calls: int, place: str) -> None:
            super().__init__()
            self.place = place if index == 1 else ""

        def extend_stream(self, stream: Tensor, earlier: Earlier) -> Tensor:
            return stream + (self.place == "stream")

        def mix_input(self, x: Tensor, earlier: Earlier) -> Tensor:
            return x + (self.place == "input")

    tokens, states = torch.randint(0, VOCAB, (2, 7)), {}
    for place in ("", "stream", "input"):
        model = randomise(lambda place=place: decoder(depth=1, links=[partial(Add, place=place), Watch]))
        model.stack.sublayers["0_feedforward"].branch.register_forward_hook(
            lambda module, args, out: (out[0] * 0, out[1])
        )
        model(tokens)
        _, second, output = watches(model)
        states[place] = second.inputs[0], output.inputs[0]
    torch.testing.assert_close(states["stream"][0], states[""][0] + 1)
    torch.testing.assert_close(states["stream"][1], states[""][1] + 1)
    torch.testing.assert_close(states["input"][0], states[""][0] + 1)
    torch.testing.assert_close(states["input"][1], states[""][1])


def test_streams_of_hyper_connections_are_extended() -> None:
    model = randomise(lambda: decoder(links=[Watch], residual=partial(HyperConnection, num_streams=3)))
    model(torch.randint(0, VOCAB, (2, 7)))
    assert {each.streams[0].shape[1:-1] for each in watches(model)} == {(7, 3)}
    assert {each.inputs[0].dim() for each in watches(model)} == {3}


def test_nothing_is_kept_without_links() -> None:
    model, kept = decoder(), []
    for sublayer in model.stack.sublayers.values():
        sublayer.register_forward_hook(lambda module, args, out: kept.append(out[1].hidden))
    model(torch.randint(0, VOCAB, (2, 7)))
    assert kept == [None] * 4


def test_input_lambdas_add_the_embeddings_to_every_stream() -> None:
    link = InputLambdas(SHAPE, 1, 4, first=0.5)
    x, stream = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.ones(1, 1, 2, 3)
    assert link.extend_stream(stream, (x, 9 * x)).tolist() == [[[[1.5, 2.0, 3.0]] * 2]]
    assert link.extend_stream(x, (x,)).tolist() == [[[1.5, 3.0, 6.0]]]


def test_input_lambdas_fall_over_depth() -> None:
    links = [InputLambdas(SHAPE, index, 4, first=0.4, last=0.1) for index in range(5)]
    assert links[0].factor is None
    assert [each.factor.item() for each in links[1:]] == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_backout_subtracts_the_middle_from_the_output_alone() -> None:
    earlier = tuple(torch.full((1, 1, 3), float(index)) for index in range(12))
    links = [Backout(SHAPE, index, 12, fraction=2 / 3, init=0.5) for index in range(13)]
    x = torch.full((1, 1, 3), 10.0)
    assert all(link.mix_input(x, earlier[:index]) is x for index, link in enumerate(links[:-1]))
    # Two thirds of 12 calls: the ninth one, whose input is 8.
    assert links[-1].mix_input(x, earlier).tolist() == [[[6.0] * 3]]


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_backout_refuses_a_place_outside_the_stack(fraction: float) -> None:
    with pytest.raises(
        ValueError, match=f"^links: Backout has fraction {fraction}, which must be at least 0 and below 1$"
    ):
        Backout(SHAPE, 0, 4, fraction=fraction)


def inputs(*values: float) -> Earlier:
    """Return inputs of sublayers with three features, each of which has the given value times 1, 2, 3."""
    return tuple(value * torch.tensor([[[1.0, 2.0, 3.0]]]) for value in values)


def test_u_net_skips_join_mirror_images() -> None:
    links = [UNetSkips(SHAPE, index, 6) for index in range(7)]
    assert [each.weight is not None for each in links] == [False] * 4 + [True, True, False]
    earlier, stream = inputs(1.0, 10.0, 100.0, 1000.0, 5.0), torch.ones(1, 1, 2, 3)
    for link, seen in ((links[4], earlier[2]), (links[5], earlier[1])):
        assert link.extend_stream(stream, earlier).tolist() == stream.tolist()
        with torch.no_grad():
            link.weight.copy_(torch.cat((2 * torch.eye(3), torch.eye(3).flip(0)), dim=1))
        expected = 2 * stream + seen.flip(-1).unsqueeze(-2)
        assert link.extend_stream(stream, earlier).tolist() == expected.tolist()


def test_u_net_skips_need_two_halves() -> None:
    with pytest.raises(
        ValueError, match=r"^links: UNetSkips joins two halves .* calls only 2 sublayer\(s\); raise depth$"
    ):
        decoder(links=[UNetSkips], depth=1)


@pytest.mark.parametrize("name", ["macaron", "cross_attention", "parallel", "recycling"])
def test_u_net_skips_join_halves_of_any_layout(name: str) -> None:
    """Sublayers are joined to their mirror images whatever they are, and decoding equals one forward."""
    options, joined = {
        "macaron": ({"layout": Macaron}, [4, 5]),
        "cross_attention": (context_options(), [4, 5]),
        "parallel": ({"layout": Parallel, "depth": 6, **context_options()}, [4, 5]),
        "recycling": ({"passes": partial(Recycling, passes=2), "depth": 3}, [4, 5]),
    }[name]
    model = randomise(partial(decoder, links=[UNetSkips], **options))
    tokens, given = example(2, 7)
    assert [call for call, (link,) in enumerate(model.stack.links) if link.weight is not None] == joined
    expected = model(tokens, inputs=given)
    expected.square().sum().backward()
    assert all(link.weight.grad.abs().max() > 0 for (link,) in model.stack.links if link.weight is not None)
    with torch.no_grad():
        cache = model.new_cache(2, 7)
        made = [model(tokens[:, t : t + 1], inputs=crop(given, slice(t, t + 1)), cache=cache) for t in range(7)]
        torch.testing.assert_close(torch.cat(made, dim=1), expected)


@pytest.mark.parametrize("gated", [False, True])
def test_reinjection_adds_a_map_of_the_embeddings(gated: bool) -> None:
    link, (x0, x1, x) = Reinjection(SHAPE, 2, 4, gated=gated), inputs(1.0, 7.0, 10.0)
    assert link.mix_input(x, (x0, x1)).tolist() == x.tolist()
    with torch.no_grad():
        link.weight.copy_(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        if gated:
            link.to_gate.weight.copy_(torch.tensor([[1.0, 1.0, -1.0]]))
    # The gate of 1 + 2 - 3 is a half.
    factor = 0.5 if gated else 1.0
    assert link.mix_input(x, (x0, x1))[0, 0].tolist() == pytest.approx([10 + 3 * factor, 20 + factor, 30.0])
    assert [Reinjection(SHAPE, index, 4).weight is None for index in range(5)] == [True, False, False, False, True]


def test_layer_mixture_weighs_all_inputs() -> None:
    link, (x0, x1, x) = LayerMixture(SHAPE, 2, 4), inputs(1.0, 10.0, 100.0)
    assert link.mix_input(x, (x0, x1)).tolist() == x.tolist()
    with torch.no_grad():
        link.bias.copy_(torch.tensor([2.0, 3.0, 0.0]))
        link.to_weights[0, 0] = 14**0.5
    # The normed input is (1, 2, 3) / sqrt(14 / 3), of which the first weight gets sqrt(3) more.
    assert link.mix_input(x, (x0, x1))[0, 0, 0].item() == pytest.approx(2 + 3**0.5 + 30)


def test_depth_attention_weighs_the_outputs_of_sublayers() -> None:
    link = DepthAttention(SHAPE, 3, 4).double()
    points = [torch.randn(1, 2, 3, dtype=torch.float64) for _ in range(4)]
    values = [points[0], *(points[i] - points[i - 1] for i in (1, 2, 3))]
    torch.testing.assert_close(link.mix_input(points[3], tuple(points[:3])), sum(values) / 4)
    torch.nn.init.normal_(link.query)
    mixed = link.mix_input(points[3], tuple(points[:3]))
    for n in range(2):
        scores = [
            math.exp(
                sum(q * f for q, f in zip(link.query.tolist(), v[0, n].tolist(), strict=True))
                / math.sqrt(v[0, n].square().mean().item() + 1e-6)
            )
            for v in values
        ]
        expected = sum(score * v[0, n] for score, v in zip(scores, values, strict=True)) / sum(scores)
        torch.testing.assert_close(mixed[0, n], expected)


def test_depth_attention_sums_blocks() -> None:
    """Of five outputs in blocks of two, the fifth is a block alone."""
    points = inputs(1.0, 2.0, 4.0, 7.0, 11.0, 16.0)
    link = DepthAttention(SHAPE, 5, 8, block_size=2)
    assert link.mix_input(points[5], points[:5])[0, 0, 0].item() == pytest.approx(
        (1 + (4 - 1) + (11 - 4) + (16 - 11)) / 4
    )
    with pytest.raises(ValueError, match=r"^links: DepthAttention has block_size 0, which must be at least 1$"):
        DepthAttention(SHAPE, 5, 8, block_size=0)


def test_output_soft_cap_limits_the_output_alone() -> None:
    x = torch.tensor([[[1.0, -20.0, 0.0]]])
    assert OutputSoftCap(SHAPE, 3, 4, cap=10.0).mix_input(x, (x,) * 3) is x
    capped = OutputSoftCap(SHAPE, 4, 4, cap=10.0).mix_input(x, (x,) * 4)
    assert capped[0, 0].tolist() == pytest.approx([10 * math.tanh(0.1), -10 * math.tanh(2.0), 0.0])
    with pytest.raises(ValueError, match=r"^links: OutputSoftCap has cap 0.0, which must be above 0$"):
        OutputSoftCap(SHAPE, 4, 4, cap=0.0)


@torch.no_grad()
def test_mudd_sums_earlier_inputs_into_the_stream_and_into_the_input_of_attention() -> None:
    link, earlier, stream = MUDD(SHAPE, 2, 4), inputs(1.0, 10.0), torch.ones(1, 1, 2, 3)
    x = inputs(100.0)[0]
    assert link.extend_stream(stream, earlier).tolist() == stream.tolist()
    assert link.mix_input(x, earlier).tolist() == x.tolist()
    link.to_stream.static.copy_(torch.tensor([3.0, 0.5, 2.0]))
    # Hidden features are the normed stream's first, 1, for the first weight.
    link.to_stream.to_hidden.weight.copy_(torch.eye(3))
    link.to_stream.from_hidden[0, 0] = 1.0
    gelu = 0.5 * (1 + math.erf(2**-0.5))
    first = 3 + gelu + 0.5 * 10
    expected = [2 + first, 2 + 2 * first, 2 + 3 * first]
    for each in link.extend_stream(stream, earlier)[0, 0].tolist():
        assert each == pytest.approx(expected, rel=1e-5)
    link.to_input.static.copy_(torch.tensor([5.0, 0.0, 0.1]))
    assert link.mix_input(x, earlier)[0, 0, 0].item() == pytest.approx(5 + 10)


def test_mudd_has_weights_before_attention_and_at_the_output() -> None:
    feedforward = LayerShape(dim=3, kind="feedforward")
    links = [MUDD(feedforward if index % 2 else SHAPE, index, 4) for index in range(4)] + [MUDD(feedforward, 4, 4)]
    assert [each.to_stream is not None for each in links] == [False, False, True, False, True]
    assert [each.to_input is not None for each in links] == [False, False, True, False, False]
