"""Weights copied from x-transformers give the same logits, loss, gradients and tokens in float64."""

import pytest
import torch
from parity.copier import copy_model
from parity.reference import build, in_float64, x_transformers
from parity.rows import LENGTH, VOCAB, Row, list_rows
from torch import Tensor

from lightning_xt import Inputs, LanguageModel, generate

CLOSE = {"rtol": 1e-8, "atol": 1e-8}
QUICK = ("plain", "all at once")
ROWS = [pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.slow) for row in list_rows()]


def make_given(row: Row) -> tuple[dict[str, object], Inputs | None]:
    """Make the input besides the tokens, for both sides."""
    if row.given == "condition":
        condition = torch.randn(2, 5, dtype=torch.float64)
        return {"condition": condition}, Inputs(condition=condition)
    if row.given == "types":
        types = torch.randint(3, (2, LENGTH))
        return {"embed_ids": {"type": types}}, Inputs(types=types)
    return {}, None


def cut(inputs: Inputs | None) -> Inputs | None:
    """Cut an input of each token to the tokens that our loss reads."""
    return Inputs(types=inputs.types[:, :-1]) if inputs is not None and inputs.types is not None else inputs


@pytest.mark.parametrize("row", ROWS)
def test_weights_of_x_transformers_give_the_same_numbers(row: Row):
    theirs = build(row.theirs).eval()
    model = LanguageModel.from_config(row.ours).double().eval()
    ledger = copy_model(theirs, model.decoder)
    tokens = torch.randint(VOCAB, (2, LENGTH))
    given, inputs = make_given(row)
    with in_float64():
        expected = theirs(tokens, **given)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(model.decoder(tokens, inputs=inputs), expected, **CLOSE)

    with in_float64():
        their_loss = x_transformers.AutoregressiveWrapper(theirs).train()(tokens, **given)
        their_loss.backward()
    our_loss = model.train().loss(tokens, inputs=cut(inputs))
    our_loss.backward()
    torch.testing.assert_close(our_loss, their_loss, **CLOSE)
    for name, gradient in ledger.map_gradients().items():
        weight = theirs.get_parameter(name)
        wanted = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient, wanted, **CLOSE, msg=lambda said, name=name: f"{name}: {said}")

    if row.decodes and row.given is None:
        with in_float64():
            wrapped = x_transformers.AutoregressiveWrapper(theirs.eval())
            continued: Tensor = wrapped.generate(tokens[:, :4], LENGTH - 4, temperature=0.0)
        assert generate(model.decoder, tokens[:, :4], LENGTH - 4, temperature=0).tolist() == continued.tolist()
