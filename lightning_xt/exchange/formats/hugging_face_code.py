from pathlib import Path
from typing import ClassVar

from lightning_xt.exchange.comparison import compare_logits
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.own_format.own_folder import write_own_folder
from lightning_xt.exchange.own_format.remote_files import make_auto_map, write_remote_files
from lightning_xt.exchange.tokenizers.exported_tokenizers import compare_tokenizers, open_with_transformers
from lightning_xt.exchange.transformers_scorer import load_with_transformers, make_transformers_scorer
from lightning_xt.exchange.verification import Verification
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder


class HuggingFaceCode(ExportFormat):
    """Folder that `transformers` loads with `trust_remote_code=True` where this package is installed."""

    name: ClassVar = "hf-code"
    summary: ClassVar = "transformers with trust_remote_code, and lightning-xt; any language model or encoder-decoder"

    def check(self, model: ExportedModel) -> None:
        if not isinstance(model.network, Decoder | EncoderDecoder):
            raise MisfitError(
                f"{model.name} is a {model.kind}, which generates nothing; use --format safetensors, which takes any"
            )
        if needed := model.module.needed_inputs:
            name, part = next(iter(needed.items()))
            raise MisfitError(
                f"{model.name} has a {part}, which needs Inputs({name}=...) in each forward, and models of "
                "transformers have no such input; train without it, or use --format safetensors"
            )

    def write(self, model: ExportedModel, folder: Path) -> None:
        write_own_folder(model, folder, make_auto_map(isinstance(model.network, EncoderDecoder)))
        write_remote_files(folder)

    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        try:
            import transformers
        except ImportError:
            return Verification("transformers is not installed; pip install transformers, and export again")
        network = load_with_transformers(model, folder, trust_remote_code=True)
        return compare_logits(model, make_transformers_scorer(network), f"transformers {transformers.__version__}")

    def verify_tokenizers(self, model: ExportedModel, folder: Path) -> list[str]:
        return compare_tokenizers(model, folder, open_with_transformers)
