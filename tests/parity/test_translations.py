"""`from-xt` translates the models of all rows: with weights copied, the printed model gives the same numbers."""

from typing import Any

import pytest
from parity.rows import Row, list_decoders, list_pairs
from parity.test_parity import check_decoder, check_pair, mark

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
    check_decoder(row, LanguageModel.from_config(translate_row(row)))


@pytest.mark.parametrize("row", mark(list_pairs()))
def test_an_encoder_decoder_is_translated(row: Row):
    check_pair(row, Seq2Seq.from_config(translate_row(row)))
