"""Models of `transformers`, opened to compare their logits."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_xt.exchange.comparison import Scorer
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.models.encoder_decoder import EncoderDecoder


def load_with_transformers(model: ExportedModel, folder: Path | str, **options: Any) -> Any:
    """Load the folder of a model in float32 and in evaluation mode; ImportError if transformers is not installed."""
    import transformers

    # Its bar for the loading of weights is of no use here.
    transformers.utils.logging.disable_progress_bar()
    pairs = isinstance(model.network, EncoderDecoder)
    loader = transformers.AutoModelForSeq2SeqLM if pairs else transformers.AutoModelForCausalLM
    return loader.from_pretrained(folder, dtype=torch.float32, **options).eval()


def make_transformers_scorer(network: Any) -> Scorer:
    """Return the scorer of a model: of ids, or of those of a source and a target."""

    def score(*ids: Tensor) -> Tensor:
        names = ("input_ids", "decoder_input_ids") if len(ids) == 2 else ("input_ids",)
        logits: Tensor = network(**dict(zip(names, ids, strict=True))).logits
        return logits

    return score
