"""GPT-2: the same model in transformers, both ways."""

from pathlib import Path

import pytest
import torch
from architecture_exports import check_architecture
from foreign_models import check_both_ways, import_run, save_foreign
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_xt.exchange.importing import read_folder
from lightning_xt.system.messages import UserError

SMALL = {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 160, "bos_token_id": 1}


def make_config(**settings: object) -> GPT2Config:
    return GPT2Config(**{**SMALL, "eos_token_id": None, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"n_inner": 40, "activation_function": "gelu", "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False},
        pytest.param({"scale_attn_weights": False, "activation_function": "relu"}, marks=pytest.mark.slow),
    ],
    ids=["plain", "untied", "unscaled"],
)
def test_hf_gpt2_export(settings: dict[str, object], tmp_path: Path) -> None:
    check_both_ways(make_config(**settings), GPT2LMHeadModel, tmp_path)


def test_the_architecture_of_gpt2_becomes_one(tmp_path: Path) -> None:
    check_architecture("gpt2", tmp_path / "ours")


def test_a_folder_of_the_first_kind_is_read(tmp_path: Path) -> None:
    """Without the start of the names, and with the masks of all layers."""
    save_foreign(make_config(), GPT2LMHeadModel, tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    expected = read_folder(tmp_path / "theirs").module.state_dict()
    older = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    older |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 160, 160).tril() for layer in range(3)}
    save_file(older, file, {"format": "pt"})
    found = read_folder(tmp_path / "theirs").module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    save_file({**older, "h.1.attn.bias": torch.ones(1, 1, 160, 160)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"h\.1\.attn\.bias differs by 1 from the only value"):
        read_folder(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True, but only False has"),
        ({"activation_function": "quick_gelu"}, "activation_function is 'quick_gelu', but only gelu, gelu_new, "),
    ],
)
def test_settings_without_counterpart_are_named(
    settings: dict[str, object], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_foreign(make_config(**settings), GPT2LMHeadModel, tmp_path / "theirs")
    with pytest.raises(AssertionError):
        import_run(tmp_path / "theirs", tmp_path / "runs")
    assert f"is a GPT-2 that has no counterpart here: {rule}" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
