"""Small models whose steps are exported."""

from typing import Any

import torch

from lightning_xt import LanguageModel, Seq2Seq
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.training.module import TransformerModule

SIZES: dict[str, Any] = {"dim": 16, "depth": 1}


def export(module: TransformerModule, **options: Any) -> ExportedModel:
    """Return a model with random parameters on its way to a format."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.2 * torch.randn(each.shape, generator=generator))
    return ExportedModel("runs/it", module.eval(), ExportOptions(**{"tokens": 40, **options}))


def language_model(**decoder: Any) -> LanguageModel:
    """Build a small language model of bytes, with a window and grouped heads."""
    attention = {"heads": 2, "kv_heads": 1, "window": 5}
    return LanguageModel.from_config({"decoder": {**SIZES, "attention": attention, **decoder}})


def translator(**decoder: Any) -> Seq2Seq:
    """Build a small encoder-decoder of bytes."""
    attention = {"attention": {"heads": 2}}
    return Seq2Seq.from_config({"encoder": {**SIZES, **attention}, "decoder": {**SIZES, **attention, **decoder}})
