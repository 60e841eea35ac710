"""Qwen3: the same model in transformers, both ways."""

from pathlib import Path

import pytest
from foreign_models import SMALL, check_both_ways
from transformers import Qwen3Config, Qwen3ForCausalLM

from lightning_xt.exchange.pretrained.base import UnsupportedSettingError
from lightning_xt.exchange.pretrained.rope import read_rope

YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 40}


def make_config(**settings: object) -> Qwen3Config:
    return Qwen3Config(**{**SMALL, "head_dim": 10, "tie_word_embeddings": True, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": YARN, "attention_bias": True},
        pytest.param({"tie_word_embeddings": False}, marks=pytest.mark.slow),
        pytest.param(
            {"rope_parameters": {**YARN, "attention_factor": 0.7, "beta_fast": 4.0, "beta_slow": 0.5}},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["yarn-biases", "untied", "yarn-factor"],
)
def test_hf_qwen3_export(settings: dict[str, object], tmp_path: Path) -> None:
    check_both_ways(make_config(**settings), Qwen3ForCausalLM, tmp_path)


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, but only 1.0 has a counterpart here"),
        ({"truncate": False}, "truncate is False, but only True has a counterpart here"),
        ({"mscale": 0.7, "mscale_all_dim": 1.0}, "mscale is 0.7, but only None has a counterpart here"),
        ({"factor": None}, "rope_type is 'yarn', but there is no factor"),
    ],
)
def test_settings_of_yarn_without_counterpart_are_named(more: dict[str, object], rule: str) -> None:
    with pytest.raises(UnsupportedSettingError, match=rule):
        read_rope({"rope_parameters": {**YARN, **more}}, 10_000.0)
