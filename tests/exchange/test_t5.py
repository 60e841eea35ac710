"""T5: the same model in transformers, both ways."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import PAIR, check_pairs_both_ways, check_same_bits, import_run
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

SIZES = {**PAIR, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 3}


def make_model(untied: bool = False, **settings: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**SIZES, **settings))
    if untied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


@pytest.mark.parametrize(
    ("settings", "untied"),
    [
        ({"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}, False),
        pytest.param({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, True, marks=pytest.mark.slow),
    ],
    ids=["first", "version_1_1"],
)
def test_hf_t5_export(settings: dict[str, Any], untied: bool, tmp_path: Path) -> None:
    exported = check_pairs_both_ways(make_model(untied, **settings), tmp_path)
    check_same_bits(exported, tmp_path / "theirs")


@pytest.mark.slow
def test_an_unscaled_tied_head_is_written_twice(tmp_path: Path) -> None:
    # transformers 5 ties what a config of version 1.1 unties; version 4 does not.
    exported = check_pairs_both_ways(make_model(feed_forward_proj="silu", tie_word_embeddings=False), tmp_path)
    tensors = load_file(exported / "model.safetensors")
    assert torch.equal(tensors.pop("lm_head.weight"), tensors["shared.weight"])
    assert tensors.keys() == load_file(tmp_path / "theirs/model.safetensors").keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"feed_forward_proj": "gated-swish"},
            "feed_forward_proj is 'gated-swish', but only 'gelu', 'gelu_new', 'gelu_pytorch_tanh', 'relu', 'relu2', "
            "'silu', 'swish', 'gated-gelu'",
        ),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False, but only True has a counterpart here"),
    ],
)
def test_a_setting_without_counterpart_is_named(
    settings: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model(**settings).save_pretrained(tmp_path / "theirs")
    with pytest.raises(AssertionError):
        import_run(tmp_path / "theirs", tmp_path / "runs")
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_tensors_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model().save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs/model.safetensors"
    tensors = load_file(file)
    tensors["decoder.extra"] = tensors.pop("decoder.final_layer_norm.weight")
    tensors["encoder.block.0.layer.0.SelfAttention.k.weight"] = torch.zeros(31, 24)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(AssertionError):
        import_run(tmp_path / "theirs", tmp_path / "runs")
    told = capsys.readouterr().err
    assert "decoder.final_layer_norm.weight is missing" in told and "decoder.extra is left over" in told
    assert "encoder.block.0.layer.0.SelfAttention.k.weight has shape (31, 24) instead of (30, 24)" in told
