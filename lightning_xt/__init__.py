"""Transformers from torch upwards, every idea a small class named in YAML, trained by PyTorch Lightning.

The names below are loaded when they are first used, so that importing one of them does not import Lightning.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    # A module of that name in the current folder comes first until __main__ has removed the folder from the path.
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "CopyTask": "lightning_xt.data.pairs.copy_task",
    "Decoder": "lightning_xt.models.decoder",
    "Encoder": "lightning_xt.models.encoder",
    "EncoderDecoder": "lightning_xt.models.encoder_decoder",
    "Inputs": "lightning_xt.core.inputs",
    "LanguageModel": "lightning_xt.training.language_model",
    "Multi30k": "lightning_xt.data.pairs.multi30k",
    "ParallelText": "lightning_xt.data.pairs.parallel_text",
    "Seq2Seq": "lightning_xt.training.seq2seq",
    "StandardLibrary": "lightning_xt.data.text.standard_library",
    "TextFiles": "lightning_xt.data.text.text_files",
    "generate": "lightning_xt.generation.engine",
}


def __getattr__(name: str) -> "Any":
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"lightning_xt has no {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
