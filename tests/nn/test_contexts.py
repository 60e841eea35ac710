"""Contexts of cross-attention."""

import re

import pytest
import torch

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.contexts.given_context import GivenContext
from lightning_xt.nn.contexts.learned_context import LearnedContext


def test_given_context_hands_on_vectors_and_mask() -> None:
    given = GivenContext(LayerShape(dim=13), dim=3)
    context, mask = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    assert given.dim == 3
    handed, which = given(2, Inputs(context=context, context_mask=mask))
    assert handed is context and which is mask
    assert given(2, Inputs(context=context))[1] is None


def test_given_context_is_as_wide_as_the_model_by_default() -> None:
    assert GivenContext(LayerShape(dim=13)).dim == 13


def test_given_context_asks_for_what_is_missing() -> None:
    with pytest.raises(ValueError, match=re.escape("GivenContext needs Inputs(context=...)")):
        GivenContext(LayerShape(dim=13))(2, Inputs())


@pytest.mark.parametrize("size", [(2, 5, 4), (3, 5, 3)])
def test_given_context_refuses_other_sizes(size: tuple[int, ...]) -> None:
    given = GivenContext(LayerShape(dim=13), dim=3)
    with pytest.raises(ValueError, match="context: GivenContext expects 2 rows of vectors 3 wide") as error:
        given(2, Inputs(context=torch.randn(size)))
    assert str(size) in str(error.value)


def test_learned_context_is_the_same_bank_for_every_row() -> None:
    learned = LearnedContext(LayerShape(dim=13), num_vectors=3)
    context, mask = learned(2, Inputs())
    assert learned.dim == 13 and mask is None
    assert context.shape == (2, 3, 13)
    assert torch.equal(context[0], learned.bank) and torch.equal(context[1], learned.bank)
    assert LearnedContext(LayerShape(dim=13)).bank.shape == (16, 13)
