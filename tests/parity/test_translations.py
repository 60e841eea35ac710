"""`from-xt` translates the models of all rows: weights copied to the printed model give the same logits in float64."""

from typing import Any

import pytest
import torch
from parity.comparisons import compare_logits
from parity.copier import copy_model
from parity.reference import build, in_float64
from parity.rows import LENGTH, SOURCE_VOCAB, VOCAB, Row, list_decoders, list_pairs
from parity.test_parity import make_given, mark

from lightning_xt import LanguageModel, Seq2Seq
from lightning_xt.commands.x_transformers.architectures import translate
from lightning_xt.commands.x_transformers.config_text import complete_model
from lightning_xt.commands.x_transformers.expression import parse


def translate_row(row: Row) -> dict[str, Any]:
    """Return the options of the model that `from-xt` prints for a row, of which nothing has no counterpart."""
    architecture = translate(parse(row.theirs))
    assert not architecture.remarks.missing
    return {**complete_model(architecture.options), "vocab": row.ours["vocab"]}


@pytest.mark.parametrize("row", mark(list_decoders()))
def test_a_decoder_is_translated(row: Row):
    theirs = build(row.theirs, zeros=row.zeros).eval()
    model = LanguageModel.from_config(translate_row(row)).double().eval()
    copy_model(theirs, model.decoder, row.zeros)
    tokens = torch.randint(VOCAB, (2, LENGTH))
    given, inputs = make_given(row)
    with in_float64():
        expected = theirs(tokens, **given)
    compare_logits(model.decoder(tokens, inputs=inputs), expected)


@pytest.mark.parametrize("row", mark(list_pairs()))
def test_an_encoder_decoder_is_translated(row: Row):
    theirs = build(row.theirs).eval()
    model = Seq2Seq.from_config(translate_row(row)).double().eval()
    copy_model(theirs, model.network)
    src, tgt = torch.randint(3, min(SOURCE_VOCAB, VOCAB), (2, 9)), torch.randint(3, VOCAB, (2, LENGTH))
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    with in_float64():
        context = theirs.encoder(src, mask=mask, return_embeddings=True)
        expected = theirs.decoder.net(tgt, context=context, context_mask=mask)
    compare_logits(model.network(src, tgt, mask), expected)
