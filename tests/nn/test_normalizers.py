"""Normalizers against sums over the visible keys."""

import math

import pytest
import torch
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.sigmoid import Sigmoid
from lightning_xt.nn.normalizers.softmax import Softmax

SHAPE = AttentionShape(dim=13, heads=3, kv_heads=3, dim_head=6)


def problem() -> tuple[Tensor, Tensor]:
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    mask = torch.rand(2, 1, 4, 5) < 0.6
    mask[0, 0, 1] = False
    mask[0, 0, 2] = True
    return scores, mask


def visible(scores: Tensor, mask: Tensor, b: int, h: int, i: int) -> dict[int, float]:
    return {j: scores[b, h, i, j].item() for j in range(5) if mask[b, 0, i, j]}


def test_softmax_over_the_visible_keys() -> None:
    scores, mask = problem()
    weights = Softmax(SHAPE)(scores, mask)
    for b in range(2):
        for h in range(3):
            for i in range(4):
                seen = visible(scores, mask, b, h, i)
                total = sum(math.exp(score) for score in seen.values())
                expected = [math.exp(seen[j]) / total if j in seen else 0.0 for j in range(5)]
                assert weights[b, h, i].tolist() == pytest.approx(expected)


def test_softmax_gives_a_query_that_sees_nothing_no_weight() -> None:
    scores, mask = problem()
    assert Softmax(SHAPE)(scores, mask)[0, :, 1].tolist() == [[0.0] * 5] * 3


def test_softmax_sums_in_float32() -> None:
    """Softmax sums in float32: in bfloat16, 1 + 1 + ... stops at 256, because the next number is 258."""
    scores = torch.zeros(1, 1, 1, 1000, dtype=torch.bfloat16)
    weights = Softmax(SHAPE)(scores, torch.ones(1, 1, 1, 1000, dtype=torch.bool))
    assert weights.dtype == torch.bfloat16
    assert weights[0, 0, 0, 0].item() == torch.tensor(1 / 1000, dtype=torch.bfloat16).item()
    # exp(0.5): the score is rounded only once.
    pair = Softmax(SHAPE)(torch.tensor([[[[0.5, 0.0]]]], dtype=torch.bfloat16), torch.ones(1, 1, 1, 2) > 0)
    exact = math.exp(0.5) / (1 + math.exp(0.5))
    assert pair[0, 0, 0, 0].item() == torch.tensor(exact, dtype=torch.bfloat16).item()


def test_sigmoid_is_offset_by_the_log_of_the_keys_seen() -> None:
    scores, mask = problem()
    weights = Sigmoid(SHAPE)(scores, mask)
    for b in range(2):
        for h in range(3):
            for i in range(4):
                seen = visible(scores, mask, b, h, i)
                # sigmoid(s - log n) = 1 / (1 + n e^-s)
                expected = [1 / (1 + len(seen) * math.exp(-seen[j])) if j in seen else 0.0 for j in range(5)]
                assert weights[b, h, i].tolist() == pytest.approx(expected)


def test_sigmoid_with_a_given_offset() -> None:
    scores, mask = problem()
    weights = Sigmoid(SHAPE, offset=-2.5)(scores, mask)
    for i in range(4):
        seen = visible(scores, mask, 1, 2, i)
        expected = [1 / (1 + math.exp(2.5 - seen[j])) if j in seen else 0.0 for j in range(5)]
        assert weights[1, 2, i].tolist() == pytest.approx(expected)
