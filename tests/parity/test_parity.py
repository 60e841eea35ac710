"""Weights copied from x-transformers give the same logits, loss, gradients and tokens in float64."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from parity.comparisons import compare_logits, compare_training
from parity.copier import copy_model
from parity.reference import build, in_float64, x_transformers
from parity.rows import LENGTH, SOURCE_VOCAB, VOCAB, Row, list_decoders, list_pairs
from torch import Tensor

from lightning_xt import Inputs, LanguageModel, Seq2Seq, generate

QUICK = ("plain", "all at once")


def mark(rows: Iterable[Row]) -> list[Any]:
    """Make parameters of a test, most of them slow."""
    return [pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.slow) for row in rows]


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


def check_decoder(row: Row, model: LanguageModel) -> None:
    """Compare a model with that of a row: logits, loss, gradients and, without other inputs, greedy decoding."""
    theirs = build(row.theirs, zeros=row.zeros).eval()
    model = model.double().eval()
    ledger = copy_model(theirs, model.decoder, row.zeros)
    tokens = torch.randint(VOCAB, (2, LENGTH))
    given, inputs = make_given(row)
    with in_float64():
        expected = theirs(tokens, **given)
    compare_logits(model.decoder(tokens, inputs=inputs), expected)

    wrapped = x_transformers.AutoregressiveWrapper(theirs)
    with in_float64():
        their_loss = wrapped.train()(tokens, **given)
    compare_training(their_loss, model.train().loss(tokens, inputs=cut(inputs)), ledger)

    if row.given is None:
        with in_float64():
            continued: Tensor = wrapped.generate(tokens[:, :4], LENGTH - 4, temperature=0.0, cache_kv=row.caches)
        assert generate(model.decoder, tokens[:, :4], LENGTH - 4, temperature=0).tolist() == continued.tolist()


def check_pair(row: Row, model: Seq2Seq) -> None:
    """Compare an encoder-decoder with that of a row, on sources and targets of different lengths."""
    theirs = build(row.theirs).eval()
    model = model.double().eval()
    ledger = copy_model(theirs, model.network)
    src = torch.randint(3, min(SOURCE_VOCAB, VOCAB), (2, 9))
    tgt = torch.cat((torch.ones(2, 1, dtype=torch.long), torch.randint(3, VOCAB, (2, LENGTH - 1))), dim=1)
    # Rows of different lengths on both sides.
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    tgt[0, -3:] = 0
    with in_float64():
        context = theirs.encoder(src, mask=mask, return_embeddings=True)
        expected = theirs.decoder.net(tgt, context=context, context_mask=mask)
    compare_logits(model.network(src, tgt, mask), expected)

    with in_float64():
        their_loss = theirs.train()(src, tgt, mask=mask)
    compare_training(their_loss, model.train().loss(src, tgt, mask), ledger)

    with in_float64(), torch.no_grad():
        continued: Tensor = theirs.generate(src, tgt[:, :1], LENGTH - 1, mask=mask, temperature=0.0)
    model.eval()
    ours = generate(
        model.network.decoder, tgt[:, :1], LENGTH - 1, temperature=0, inputs=model.network.encode(src, mask)
    )
    assert ours.tolist() == continued.tolist()


@pytest.mark.parametrize("row", mark(list_decoders()))
def test_decoders_are_those_of_x_transformers(row: Row):
    check_decoder(row, LanguageModel.from_config(row.ours))


@pytest.mark.parametrize("row", mark(list_pairs()))
def test_encoder_decoders_are_those_of_x_transformers(row: Row):
    check_pair(row, Seq2Seq.from_config(row.ours))
