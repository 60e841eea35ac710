"""Scores, term by term."""

import math
from functools import partial

import pytest
import torch
from catalogue import DIM, DIM_HEAD

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.visible_keys import count_visible
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.combined import Combined
from lightning_xt.nn.positions.path import PaTH
from lightning_xt.nn.positions.randomized_positions import RandomizedPositions
from lightning_xt.nn.scores.dot_product import DotProduct
from lightning_xt.nn.scores.log_length_scale import LogLengthScale
from lightning_xt.nn.scores.negative_distance import NegativeDistance
from lightning_xt.nn.scores.scalable_softmax import ScalableSoftmax

SHAPE = AttentionShape(dim=12, heads=2, kv_heads=2, dim_head=DIM_HEAD)


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 2, 3, DIM_HEAD, dtype=torch.float64), torch.randn(1, 2, 5, DIM_HEAD, dtype=torch.float64)


def test_the_dot_product_is_scaled() -> None:
    q, k = pairs()
    scores = DotProduct(SHAPE)(q, k, 0.5)
    expected = sum(q[0, 1, 2, d] * k[0, 1, 4, d] for d in range(DIM_HEAD)) * 0.5
    torch.testing.assert_close(scores[0, 1, 2, 4], expected)


def test_the_dot_product_takes_another_scale() -> None:
    assert DotProduct(SHAPE).choose_scale(0.5) == 0.5
    assert DotProduct(SHAPE, scale=1.0).choose_scale(0.5) == 1.0
    sizes = LayerShape(dim=DIM)
    options = {"heads": 2, "dim_head": DIM_HEAD}
    usual, plain, cooled = (
        Attention(sizes, **options, score=partial(DotProduct, scale=scale)).double().eval()
        for scale in (None, DIM_HEAD**-0.5, 0.5 * DIM_HEAD**-0.5)
    )
    x = torch.randn(1, 5, DIM, dtype=torch.float64)
    for each in (plain, cooled):
        each.load_state_dict(usual.state_dict())
    outputs = [each(x, sequence(5), Inputs(), Trace(), None)[0] for each in (usual, plain)]
    torch.testing.assert_close(*outputs)
    # Halved scores are those of halved queries.
    with torch.no_grad():
        usual.projection.to_qkv.weight[: 2 * DIM_HEAD] *= 0.5
    outputs = [each(x, sequence(5), Inputs(), Trace(), None)[0] for each in (usual, cooled)]
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize(
    "position", [PaTH, partial(Combined, positions=[ALiBi, PaTH]), partial(RandomizedPositions, position=PaTH)]
)
def test_products_that_a_position_adds_have_the_scale_of_the_score(position) -> None:
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    usual, scaled = (
        Attention(
            LayerShape(dim=DIM), heads=2, dim_head=DIM_HEAD, position=position, score=partial(DotProduct, scale=scale)
        )
        .double()
        .eval()
        for scale in (None, 2 * DIM_HEAD**-0.5)
    )
    scaled.load_state_dict(usual.state_dict())
    with torch.no_grad():
        usual.projection.to_qkv.weight[: 2 * DIM_HEAD] *= 2
    outputs = [each(x, sequence(5), Inputs(), Trace(), None)[0] for each in (usual, scaled)]
    torch.testing.assert_close(*outputs)


def test_the_distance_is_squared_scaled_and_negative() -> None:
    q, k = pairs()
    scores = NegativeDistance(SHAPE)(q, k, 0.5)
    expected = -0.5 * sum((q[0, 1, 2, d] - k[0, 1, 4, d]) ** 2 for d in range(DIM_HEAD))
    torch.testing.assert_close(scores[0, 1, 2, 4], expected)
    assert (scores <= 0).all()


@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
def test_cases_p9_distances_are_exact_for_16_bit_queries_and_keys(autocast: bool) -> None:
    """A distance is a small difference of large numbers, which may not be rounded to 16 bits before."""
    q, k = ((5 + each).bfloat16() for each in pairs())
    exact = NegativeDistance(SHAPE)(q.double(), k.double(), 0.5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        scores = NegativeDistance(SHAPE)(q, k, 0.5)
    torch.testing.assert_close(scores.double(), exact, rtol=1e-4, atol=1e-4)


def sequence(n: int, *, causal: bool = True, **inputs: torch.Tensor) -> Where:
    return Where.from_sequence(n, causal=causal, inputs=Inputs(**inputs), lengths=None, device=torch.device("cpu"))


def test_log_length_scale_grows_with_the_number_of_keys() -> None:
    q, k = pairs()
    score = LogLengthScale(SHAPE, length=8)
    scores = score(score.scale_queries(q, sequence(3)), k, 0.5)
    for i in range(3):
        expected = math.log(i + 1) / math.log(8) * DotProduct(SHAPE)(q, k, 0.5)[0, 1, i, 4].item()
        assert scores[0, 1, i, 4].item() == pytest.approx(expected)


def test_scalable_softmax_multiplies_by_a_number_per_head() -> None:
    q, k = pairs()
    score = ScalableSoftmax(SHAPE)
    with torch.no_grad():
        score.factor.copy_(torch.tensor([[0.5], [2.0]]))
    scores = score(score.scale_queries(q, sequence(3, causal=False)), k, 0.5)
    expected = math.log(3) * DotProduct(SHAPE)(q, k, 0.5)
    torch.testing.assert_close(scores[:, 1], 2 * expected[:, 1])
    torch.testing.assert_close(scores[:, 0], 0.5 * expected[:, 0])


@pytest.mark.parametrize(
    "where",
    [
        sequence(7),
        sequence(7).limit_window(3),
        sequence(7).limit_window(3).add_memory(2),
        sequence(7, causal=False),
        sequence(7, causal=False).limit_window(3),
        sequence(7, documents=torch.tensor([[4, 4, 4, 9, 9, 9, 9], [1, 2, 2, 2, 2, 2, 2]])),
        sequence(7, hidden_tokens=torch.tensor([[False, True, False, False, True, False, False]])),
        sequence(7, visible_prefix=torch.tensor([4, 1])),
        sequence(7, positions=torch.tensor([[3, 1, 0, 2, 6, 5, 4]])),
        sequence(7).add_memory(2, torch.tensor([[True, False], [True, True]])),
    ],
)
def test_visible_keys_are_counted_as_in_the_mask(where: Where) -> None:
    counted = count_visible(where)
    expected = where.dense()[:, 0].sum(dim=-1)
    assert counted.expand(len(expected), -1).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: DotProduct(SHAPE, scale=0.0), "DotProduct has scale 0.0, which must be above 0"),
        (lambda: LogLengthScale(SHAPE, length=1), "LogLengthScale has length 1, which must be at least 2"),
        (lambda: ScalableSoftmax(SHAPE, scale_init=0.0), "ScalableSoftmax has scale_init 0.0, which must be above 0"),
    ],
)
def test_options_outside_their_range_are_refused(build, rule: str) -> None:
    with pytest.raises(ValueError, match=f"score: {rule}"):
        build()
