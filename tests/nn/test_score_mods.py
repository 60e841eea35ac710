"""Score mods on small tables of scores."""

import math

import pytest
import torch

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.score_mods.soft_cap import SoftCap
from lightning_xt.nn.score_mods.talking_heads import TalkingHeads

SHAPE = AttentionShape(dim=13, heads=2, kv_heads=2, dim_head=6)


def test_soft_cap() -> None:
    scores = torch.tensor([-1000.0, -3.0, 0.0, 0.1, 6.0])
    expected = [-3.0, -3 * math.tanh(1), 0.0, 3 * math.tanh(0.1 / 3), 3 * math.tanh(2)]
    assert SoftCap(SHAPE, cap=3.0)(scores).tolist() == pytest.approx(expected)


def test_soft_cap_is_fifty_by_default() -> None:
    assert SoftCap(SHAPE)(torch.tensor(1e6)).item() == 50


@pytest.mark.parametrize("cap", [0.0, -2.0])
def test_soft_cap_refuses_an_invalid_cap(cap: float) -> None:
    with pytest.raises(ValueError, match=f"score_mods: SoftCap has cap {cap}, which must be above 0"):
        SoftCap(SHAPE, cap=cap)


def test_talking_heads_starts_as_no_mixing() -> None:
    talking, scores = TalkingHeads(SHAPE), torch.randn(2, 2, 3, 5)
    assert torch.equal(talking(scores), scores)
    assert torch.equal(talking.modify_weights(scores, None), scores)


def test_talking_heads_mixes_scores_and_weights_by_a_matrix_each() -> None:
    talking = TalkingHeads(SHAPE)
    with torch.no_grad():
        talking.score_mix.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        talking.weight_mix.copy_(torch.tensor([[0.0, 1.0], [-1.0, 0.5]]))
    scores = torch.tensor([10.0, 1.0]).view(1, 2, 1, 1)
    # From head h (row) to head k (column): 10 * 1 + 1 * 3 and 10 * 2 + 1 * 4.
    assert talking(scores).flatten().tolist() == [13.0, 24.0]
    assert talking.modify_weights(scores, None).flatten().tolist() == [-1.0, 10.5]
