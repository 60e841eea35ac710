"""Token shift by hand."""

import pytest
import torch

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.shifts.token_shift import TokenShift


def where(n: int, inputs: Inputs) -> Where:
    return Where.from_sequence(n, causal=True, inputs=inputs, lengths=None, device=torch.device("cpu"))


def test_the_last_features_come_from_the_token_before() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]]])
    out = TokenShift(LayerShape(dim=4))(x, where(3, Inputs()), None)
    assert out.tolist() == [[[1.0, 2.0, 0.0, 0.0], [5.0, 6.0, 3.0, 4.0], [9.0, 10.0, 7.0, 8.0]]]


@pytest.mark.parametrize(("share", "shifted"), [(0.25, 1), (0.01, 1), (0.75, 3), (1.0, 4)])
def test_share_counts_features(share: float, shifted: int) -> None:
    x = torch.arange(1.0, 9.0).view(1, 2, 4)
    out = TokenShift(LayerShape(dim=4), fraction=share)(x, where(2, Inputs()), None)
    assert out[0, 1].tolist() == [5.0, 6.0, 7.0, 8.0][: 4 - shifted] + [1.0, 2.0, 3.0, 4.0][4 - shifted :]


def test_a_document_starts_with_zeros() -> None:
    x = torch.arange(1.0, 9.0).view(1, 4, 2)
    inputs = Inputs(documents=torch.tensor([[3, 3, 5, 5]]))
    out = TokenShift(LayerShape(dim=2))(x, where(4, inputs), None)
    assert out.tolist() == [[[1.0, 0.0], [3.0, 2.0], [5.0, 0.0], [7.0, 6.0]]]


def test_cases_p3_a_masked_token_passes_nothing_on() -> None:
    x = torch.arange(1.0, 9.0).view(1, 4, 2)
    inputs = Inputs(hidden_tokens=torch.tensor([[True, False, True, False]]))
    out = TokenShift(LayerShape(dim=2))(x, where(4, inputs), None)
    assert out.tolist() == [[[1.0, 0.0], [3.0, 0.0], [5.0, 4.0], [7.0, 0.0]]]


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_refuses_an_invalid_fraction(share: float) -> None:
    with pytest.raises(
        ValueError, match=f"shift: TokenShift has fraction {share}, which must be above 0 and at most 1"
    ):
        TokenShift(LayerShape(dim=4), fraction=share)
