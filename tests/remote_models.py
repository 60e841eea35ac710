"""Models of this package in transformers, by folders with remote code."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.hugging_face_code import HuggingFaceCode
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.seq2seq import Seq2Seq

SIZES: dict[str, Any] = {"dim": 32, "depth": 2}
VOCAB: dict[str, int | None] = {"source": 23, "target": 23, "pad": 0, "start": 1, "end": None, "separator": None}


def build_language_model(**options: Any) -> LanguageModel:
    """Build a small language model with random weights, gains and biases included."""
    return randomize(LanguageModel.from_config({"vocab": VOCAB, "decoder": {**SIZES, **options}}))


def build_pair_model(**options: Any) -> Seq2Seq:
    """Build a small encoder-decoder with random weights."""
    return randomize(Seq2Seq.from_config({"vocab": {**VOCAB, "end": 2}, "encoder": SIZES, "decoder": SIZES, **options}))


def randomize(module: Any) -> Any:
    """Add noise to all parameters, which zero-initialised ones need, and return the model in evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.2 * torch.randn_like(each))
    return module.eval()


def write_remote(module: TransformerModule, folder: Path) -> Path:
    """Write a folder with remote code."""
    folder.mkdir(parents=True)
    model = ExportedModel("model", module, ExportOptions())
    HuggingFaceCode().check(model)
    HuggingFaceCode().write(model, folder)
    return folder


def load_remote(folder: Path, dtype: torch.dtype = torch.float64, pairs: bool = False) -> Any:
    """Load a folder as users of transformers do."""
    loader = AutoModelForSeq2SeqLM if pairs else AutoModelForCausalLM
    return loader.from_pretrained(folder, trust_remote_code=True, dtype=dtype).eval()
