"""Qwen3: the same model in transformers, both ways."""

from pathlib import Path

import pytest
from foreign_models import SMALL, check_both_ways
from transformers import Qwen3Config, Qwen3ForCausalLM


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_hf_qwen3_export(tied: bool, tmp_path: Path) -> None:
    config = Qwen3Config(**SMALL, head_dim=10, tie_word_embeddings=tied)
    check_both_ways(config, Qwen3ForCausalLM, tmp_path)
