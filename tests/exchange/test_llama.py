"""Llama: the same model in transformers, both ways."""

from pathlib import Path

import pytest
from foreign_models import SMALL, check_both_ways, import_run, save_foreign
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 10, "rms_norm_eps": 1e-3},
        pytest.param(
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}, marks=pytest.mark.slow
        ),
        pytest.param(
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 500.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 16,
                }
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "biases", "linear", "llama3"],
)
def test_hf_llama_export(settings: dict[str, object], tmp_path: Path) -> None:
    check_both_ways(LlamaConfig(**{**SMALL, **settings}), LlamaForCausalLM, tmp_path)


def test_a_scaling_without_counterpart_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 8.0}
    save_foreign(LlamaConfig(**SMALL, rope_parameters=rope), LlamaForCausalLM, tmp_path / "theirs")
    with pytest.raises(AssertionError):
        import_run(tmp_path / "theirs", tmp_path / "runs")
    assert "rope_type is 'dynamic', but only default, linear, llama3" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
