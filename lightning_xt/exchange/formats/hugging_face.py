from pathlib import Path
from typing import ClassVar

from lightning_xt.exchange.comparison import compare_logits
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.folders.json_files import write_json
from lightning_xt.exchange.folders.safetensors_files import write_tensors
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.generation_settings import list_ids, make_generation_config
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.pretrained.shape_choice import fit_shape
from lightning_xt.exchange.tensor_rules import export_tensors
from lightning_xt.exchange.tokenizers.exported_tokenizers import (
    compare_tokenizers,
    open_with_transformers,
    write_tokenizers,
)
from lightning_xt.exchange.transformers_scorer import load_with_transformers, make_transformers_scorer
from lightning_xt.exchange.verification import Verification


class HuggingFace(ExportFormat):
    """Folder of a model of `transformers`, which that library and others load without this package."""

    name: ClassVar = "hf"
    summary: ClassVar = "transformers, vLLM and others; models in the shape of Llama, Qwen3, GPT-2, Gemma 2, T5, Marian"

    def check(self, model: ExportedModel) -> None:
        fit_shape(model)
        if not model.has_one_tokenizer:
            raise MisfitError(
                f"{model.name} has a tokenizer for sources and another for targets, but a folder of transformers holds "
                "one; train with --data.shared_tokenizer true, or use --format ctranslate2"
            )

    def write(self, model: ExportedModel, folder: Path) -> None:
        shape, settings = fit_shape(model)
        rules = shape.list_rules(settings)
        write_tensors(export_tensors(model.network, rules), folder, model.options.dtype)
        ids = list_ids(model)
        config = {
            "architectures": [shape.architecture],
            "model_type": shape.model_type,
            shape.length_setting: shape.choose_length(model.max_length),
            "dtype": str(model.options.dtype).removeprefix("torch."),
            **ids,
            **shape.write_config(settings),
        }
        write_json(folder / "config.json", config)
        write_json(folder / "generation_config.json", make_generation_config(model, ids))
        write_tokenizers(model, folder)

    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        try:
            import transformers
        except ImportError:
            return Verification("transformers is not installed; pip install transformers, and export again")
        network = load_with_transformers(model, folder)
        return compare_logits(model, make_transformers_scorer(network), f"transformers {transformers.__version__}")

    def verify_tokenizers(self, model: ExportedModel, folder: Path) -> list[str]:
        return compare_tokenizers(model, folder, open_with_transformers)
