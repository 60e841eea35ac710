"""Token shift by hand."""

from functools import partial

import pytest
import torch

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.shifts.canon import Canon
from lightning_xt.nn.shifts.shift_cycle import ShiftCycle
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


def test_parts_of_the_features_come_from_several_tokens_before() -> None:
    x = torch.arange(1.0, 21.0).view(1, 4, 5)
    out = TokenShift(LayerShape(dim=5), fraction=0.8, max_distance=3)(x, where(4, Inputs()), None)
    # Four shifted features in three parts: two from the token before, one from the second and one from the third.
    assert out[0, 3].tolist() == [16.0, 12.0, 13.0, 9.0, 5.0]
    assert out[0, 1].tolist() == [6.0, 2.0, 3.0, 0.0, 0.0]


@pytest.mark.parametrize("far", [0, 3])
def test_refuses_more_parts_than_features(far: int) -> None:
    with pytest.raises(ValueError, match=f"shift: TokenShift has max_distance {far}, which must be from 1 to 2"):
        TokenShift(LayerShape(dim=4), max_distance=far)


def test_canon_is_a_causal_convolution_of_each_feature() -> None:
    shift, x = Canon(LayerShape(dim=3)), torch.randn(2, 7, 3)
    convolution = torch.nn.Conv1d(3, 3, 4, groups=3, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(shift.weights.flip(0).T[:, None])
        padded = torch.nn.functional.pad(x.mT, (3, 0))
        torch.testing.assert_close(shift(x, where(7, Inputs()), None), x + convolution(padded).mT)


def test_canon_reads_no_other_document() -> None:
    shift = Canon(LayerShape(dim=1), width=3)
    with torch.no_grad():
        shift.weights.copy_(torch.tensor([[1.0], [10.0], [100.0]]))
    inputs = Inputs(documents=torch.tensor([[1, 1, 1, 2, 2]]))
    out = shift(torch.arange(1.0, 6.0).view(1, 5, 1), where(5, inputs), None)
    assert out.flatten().tolist() == [2.0, 14.0, 126.0, 8.0, 50.0]
    with pytest.raises(ValueError, match="shift: Canon has width 1, which must be at least 2"):
        Canon(LayerShape(dim=1), width=1)


def test_shift_cycle_alternates_by_layer() -> None:
    cycle, x = partial(ShiftCycle, shifts=[TokenShift, None]), torch.randn(1, 4, 6)
    for layer, shifts in enumerate((True, False, True)):
        out = cycle(LayerShape(dim=6, depth=3, layer=layer))(x, where(4, Inputs()), None)
        assert out.equal(TokenShift(LayerShape(dim=6))(x, where(4, Inputs()), None) if shifts else x)


def test_shift_cycle_refuses_a_pattern_that_no_layer_has() -> None:
    with pytest.raises(ValueError, match="shift: ShiftCycle has an empty list of shifts; give at least one"):
        ShiftCycle(LayerShape(dim=4), shifts=[])
    with pytest.raises(ValueError, match=r"shift: ShiftCycle has 2 shifts, but there are only 1 layer\(s\)"):
        ShiftCycle(LayerShape(dim=4), shifts=[None, TokenShift])
