"""Imported models compute what transformers computes, with every part of both in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import SMALL, save_foreign
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lightning_xt.exchange.importing import read_folder
from lightning_xt.nn.positions.rotary import Rotary

GPT2 = {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 160, "eos_token_id": None}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
LENGTHS = {"rope_theta": 500.0, "original_max_position_embeddings": 40}
CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
GEMMA2 = {"head_dim": 10, "query_pre_attn_scalar": 7, "sliding_window": 5, "attn_implementation": "eager"}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, rope_parameters={**LLAMA3, **LENGTHS}, attention_bias=True)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SMALL, head_dim=10, rope_parameters={**YARN, **LENGTHS})),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2)),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**{**SMALL, **GEMMA2, **CAPS})),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits_are_exact(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, config = MODELS[name]
    theirs: Any = save_foreign(config, kind, tmp_path / "theirs").double()
    ours = read_folder(tmp_path / "theirs").module.network.double()
    # Transformers rounds the frequencies and the factor of the embeddings once more.
    for part in ours.modules():
        if isinstance(part, Rotary):
            torch.testing.assert_close(part.frequencies, theirs.model.rotary_emb.inv_freq.float(), rtol=5e-7, atol=0)
            part.frequencies = theirs.model.rotary_emb.inv_freq
    if name == "gemma2":
        theirs.model.embed_tokens.embed_scale.fill_(config.hidden_size**0.5)
    ids = torch.randint(0, 61, (2, 60))
    for alias in ("float32", "float"):
        monkeypatch.setattr(torch, alias, torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    expected = theirs(input_ids=ids).logits
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-12)
