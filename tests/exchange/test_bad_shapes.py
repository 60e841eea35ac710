"""Sizes in a config.json that no weights have are refused before memory is taken, for every shape."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from foreign_models import PAIR, SMALL
from safetensors.torch import load_file, save_file

from lightning_xt.exchange.importing import read_folder
from lightning_xt.exchange.pretrained import marian
from lightning_xt.exchange.pretrained.shape_choice import list_shapes
from lightning_xt.system.messages import UserError

MARIAN = {"layers": 1, "ffn_dim": 40, "attention_heads": 4}
IDS = {"bos_token_id": 1, "eos_token_id": None}
TIED = {**SMALL, "head_dim": 10, "tie_word_embeddings": True}
SIDES = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in MARIAN.items()}
MODELS: dict[str, Callable[[], Any]] = {
    "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**TIED, query_pre_attn_scalar=10)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=61, n_positions=160, n_embd=24, n_layer=2, n_head=4, **IDS)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**TIED)),
    "marian": lambda: transformers.MarianMTModel(
        transformers.MarianConfig(**PAIR, **SIDES, d_model=24, max_position_embeddings=160, forced_eos_token_id=None)
    ),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**TIED)),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**PAIR, d_model=24, d_kv=10, d_ff=40, num_layers=1, num_heads=3)
    ),
}
SHAPES = {each.model_type: each for each in list_shapes()}


def save(name: str, folder: Path, **settings: Any) -> Path:
    MODELS[name]().save_pretrained(folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **settings}))
    return folder


def add_tensors(folder: Path, **tensors: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **tensors}, file, {"format": "pt"})


@pytest.mark.parametrize("name", SHAPES)
def test_more_layers_than_tensors_are_refused(name: str, tmp_path: Path) -> None:
    for setting in SHAPES[name].depth_settings:
        folder = save(name, tmp_path / setting, **{setting: 10**12, "layer_types": None})
        with pytest.raises(UserError, match=f"{setting} is 1000000000000, but the weights have .* of another model"):
            read_folder(folder)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("gpt2", r"wpe.weight has shape \(160, 24\) instead of \(100000000, 24\)"),
     ("marian", r"has shape \(160, 24\), but max_position_embeddings and d_model are 100000000 and 24")],
)  # fmt: skip
def test_more_positions_than_weights_are_refused(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marian, "compute_sines", None)
    folder = save(name, tmp_path / "theirs", **{SHAPES[name].length_setting: 10**8})
    if name == "marian":
        add_tensors(folder, **{"model.encoder.embed_positions.weight": torch.zeros(160, 24)})
    with pytest.raises(UserError, match=sentence):
        read_folder(folder)


@pytest.mark.parametrize("name", [each for each in SHAPES if each != "gpt2"])
def test_the_length_of_computed_positions_takes_no_memory(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path / "theirs", **{SHAPES[name].length_setting: 10**9})
    assert read_folder(folder).module.trained_length == 10**9


@pytest.mark.parametrize("name", ["gemma2", "llama", "qwen3"])
def test_a_tied_head_may_be_repeated(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path / "theirs")
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    add_tensors(folder, **{"lm_head.weight": table.clone()})
    assert torch.equal(read_folder(folder).module.network.token_embedding.weight, table)
    add_tensors(folder, **{"lm_head.weight": table + 1})
    with pytest.raises(UserError, match=r"lm_head.weight differs by 1.* from model.embed_tokens.weight"):
        read_folder(folder)


def test_a_table_that_t5_does_not_use_is_dropped(tmp_path: Path) -> None:
    folder = save("t5", tmp_path / "theirs")
    expected = read_folder(folder).module.state_dict()
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    add_tensors(folder, **{name: torch.randn(32, 3)})
    found = read_folder(folder).module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
