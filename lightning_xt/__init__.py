"""Transformers from torch upwards, every idea a small class named in YAML, trained by PyTorch Lightning.

A class whose file is named for it, such as `ALiBi` of `nn/positions/alibi.py`, is a name of this package. It is
imported when it is first used, so that importing one of them does not import Lightning.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    # A module of that name in the current folder comes first until __main__ has removed the folder from the path.
    from typing import Any

    from lightning_xt.core.inputs import Inputs as Inputs
    from lightning_xt.data.text.text_files import TextFiles as TextFiles
    from lightning_xt.generation.engine import generate as generate
    from lightning_xt.inference.attention_maps import compute_attention_maps as compute_attention_maps
    from lightning_xt.inference.token_losses import compute_token_losses as compute_token_losses
    from lightning_xt.models.decoder import Decoder as Decoder
    from lightning_xt.models.encoder import Encoder as Encoder
    from lightning_xt.models.encoder_decoder import EncoderDecoder as EncoderDecoder
    from lightning_xt.training.language_model import LanguageModel as LanguageModel
    from lightning_xt.training.seq2seq import Seq2Seq as Seq2Seq

__version__ = "0.1.0"


def __getattr__(name: str) -> "Any":
    if name.startswith("_") and name != "__all__":
        raise AttributeError(name)
    from lightning_xt.system.public_names import find_public, list_public

    return list_public() if name == "__all__" else globals().setdefault(name, find_public(name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
