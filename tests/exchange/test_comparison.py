"""Comparison of logits: rounded weights are those that are written, and equal tokens are counted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_xt.exchange.comparison import compare_logits
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.own_format.own_folder import write_own_folder
from lightning_xt.training.language_model import LanguageModel

SIZES: dict[str, Any] = {"dim": 16, "depth": 1, "attention": {"heads": 2}}


def build(dtype: torch.dtype = torch.float32, **options: Any) -> ExportedModel:
    torch.manual_seed(0)
    module = LanguageModel.from_config({"decoder": SIZES, **options}).eval()
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.2 * torch.randn_like(each))
    return ExportedModel("runs/x", module, ExportOptions(dtype))


def test_a_small_error_in_rounded_weights_is_noticed() -> None:
    model = build(torch.bfloat16)
    theirs = model.round_weights()
    assert compare_logits(model, theirs, "another").difference == 0
    with torch.no_grad():
        theirs.get_parameter("stack.output_norm.gain").mul_(1.01)
    with pytest.raises(ValueError, match=r"the logits of another differ by .*, more than 0.0001"):
        compare_logits(model, theirs, "another")


def test_equal_tokens_are_counted() -> None:
    model = build()
    assert compare_logits(model, model.network, "another").tokens == 24
    with torch.no_grad():
        model.network.get_parameter("head.to_logits.weight").zero_()

    def prefer_last(ids: Tensor) -> Tensor:
        logits: Tensor = model.network(ids).clone()
        logits[..., -1] += 1e-5
        return logits

    found = compare_logits(model, prefer_last, "another")
    assert found.tokens == 0 and "0 greedy tokens are the same" in str(found)


def test_a_merged_model_trains_whole(tmp_path: Path) -> None:
    model = build(adapter="LoRA")
    assert model.merge() is model.merge()
    assert all(each.requires_grad for each in model.merge().module.parameters())
    write_own_folder(model.merge(), tmp_path, {})
    assert "trained_parameters" not in json.loads((tmp_path / "config.json").read_text())["lightning_xt"]
