"""Scores, term by term."""

import pytest
import torch
from catalogue import DIM_HEAD

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.scores.dot_product import DotProduct
from lightning_xt.nn.scores.negative_distance import NegativeDistance

SHAPE = AttentionShape(dim=12, heads=2, kv_heads=2, dim_head=DIM_HEAD)


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 2, 3, DIM_HEAD, dtype=torch.float64), torch.randn(1, 2, 5, DIM_HEAD, dtype=torch.float64)


def test_the_dot_product_is_scaled() -> None:
    q, k = pairs()
    scores = DotProduct(SHAPE)(q, k, 0.5)
    expected = sum(q[0, 1, 2, d] * k[0, 1, 4, d] for d in range(DIM_HEAD)) * 0.5
    torch.testing.assert_close(scores[0, 1, 2, 4], expected)


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
