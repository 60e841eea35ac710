"""Marian: the same model in transformers, both ways."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import PAIR, check_pairs_both_ways, check_same_bits
from transformers import MarianConfig, MarianMTModel

SIZES = {
    **PAIR,
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "max_position_embeddings": 160,
    "forced_eos_token_id": None,
}


def make_model(bias: bool = False, **settings: Any) -> MarianMTModel:
    torch.manual_seed(0)
    model = MarianMTModel(MarianConfig(**SIZES, **settings))
    if bias:
        model.final_logits_bias.normal_()
    return model


@pytest.mark.parametrize(
    ("settings", "bias"),
    [
        ({"activation_function": "swish", "scale_embedding": True}, True),
        ({"activation_function": "relu", "share_encoder_decoder_embeddings": False}, False),
        (
            {
                "activation_function": "gelu",
                "share_encoder_decoder_embeddings": False,
                "tie_word_embeddings": False,
            },
            True,
        ),
    ],
    ids=["usual", "two_tables", "three_tables"],
)
def test_hf_marian_export(settings: dict[str, Any], bias: bool, tmp_path: Path) -> None:
    exported = check_pairs_both_ways(make_model(bias, **settings), tmp_path)
    check_same_bits(exported, tmp_path / "theirs")
