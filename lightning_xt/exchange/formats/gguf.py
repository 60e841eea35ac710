from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_xt.exchange.comparison import compare_logits
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.pretrained.base import PretrainedShape
from lightning_xt.exchange.pretrained.shape_choice import fit_shape
from lightning_xt.exchange.tensor_rules import export_tensors
from lightning_xt.exchange.tokenizers.exported_tokenizers import compare_tokenizers
from lightning_xt.exchange.tokenizers.gguf_tokenizer import open_byte_pairs, read_byte_pairs, write_byte_pairs
from lightning_xt.exchange.transformers_scorer import load_with_transformers, make_transformers_scorer
from lightning_xt.exchange.verification import Verification

ARCHITECTURES = ("llama", "qwen3")
"""Shapes, by their `model_type`, that are written; the names of llama.cpp's architectures are the same."""
INTERLEAVED = "llama"
"""The architecture whose queries and keys llama.cpp rotates in pairs of neighbours, not of halves."""
FILE = "model.gguf"


class Gguf(ExportFormat):
    """File of llama.cpp and the programs around it: weights, settings and tokenizer of a model in one of its shapes."""

    name: ClassVar = "gguf"
    summary: ClassVar = "llama.cpp and programs around it; models in the shape of Llama or Qwen3 with a BPE or bytes"

    def check(self, model: ExportedModel) -> None:
        shape, settings = fit_shape(model)
        if shape.model_type not in ARCHITECTURES:
            raise MisfitError(
                f"{model.name} has the shape of {shape.label}, which is not written as gguf; use --format hf"
            )
        if settings["rope_type"] != "default":
            raise MisfitError(
                f"{model.name} scales its rotary positions (model.decoder.attention.position.rope_scaling), which is "
                "not written as gguf; use --format hf"
            )
        if settings.get("attention_bias") or settings.get("mlp_bias"):
            raise MisfitError(
                f"{model.name} has biases (model.decoder.attention.projection.bias or model.decoder.feedforward.bias), "
                "which are not written as gguf; use --format hf"
            )
        read_byte_pairs(model)
        try:
            import gguf  # noqa: F401
        except ImportError as error:
            raise MisfitError("gguf is not installed; pip install 'lightning-xt[gguf]'") from error

    def write(self, model: ExportedModel, folder: Path) -> None:
        import gguf

        shape, settings = fit_shape(model)
        writer = gguf.GGUFWriter(folder / FILE, shape.model_type)
        _write_settings(writer, model, settings)
        write_byte_pairs(writer, read_byte_pairs(model), model)
        kind = getattr(gguf.GGMLQuantizationType, TYPES[model.options.dtype])
        writer.add_file_type(getattr(gguf.LlamaFileType, FILE_TYPES[model.options.dtype]))
        for name, tensor in name_tensors(model, shape, settings).items():
            # Vectors stay float32, as all writers of the format have them.
            chosen = kind if tensor.dim() > 1 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), chosen), raw_dtype=chosen)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        _compare_tensors(model, folder)
        try:
            import transformers
        except ImportError:
            reason = "transformers is not installed, which would compute logits; gguf has read back the same tensors"
            return Verification(reason)
        shape, settings = fit_shape(model)
        # Its reader takes the width of heads from the file for the first architecture only.
        known: dict[str, Any] = shape.write_config(settings)
        options: dict[str, Any] = {"gguf_file": FILE}
        if shape.model_type != INTERLEAVED:
            options["config"] = transformers.AutoConfig.for_model(shape.model_type, **known)
        network = load_with_transformers(model, folder, **options)
        reader = f"transformers {transformers.__version__} by gguf {version('gguf')}"
        return compare_logits(model, make_transformers_scorer(network), reader, round_vectors=False)

    def verify_tokenizers(self, model: ExportedModel, folder: Path) -> list[str]:
        return compare_tokenizers(model, folder, lambda place: open_byte_pairs(place / FILE))


TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
FILE_TYPES = {torch.float32: "ALL_F32", torch.float16: "MOSTLY_F16", torch.bfloat16: "MOSTLY_BF16"}


def name_tensors(model: ExportedModel, shape: PretrainedShape, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the model by their names in the format."""
    import gguf

    architecture = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == shape.model_type)
    names = gguf.get_tensor_name_map(architecture, settings["num_hidden_layers"])
    made: dict[str, Tensor] = {}
    for name, tensor in export_tensors(model.network, shape.list_rules(settings)).items():
        if shape.model_type == INTERLEAVED:
            for kind, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads")):
                if name.endswith(f"{kind}_proj.weight"):
                    tensor = interleave(tensor, settings[heads])
        made[str(names.get_name(name, try_suffixes=(".weight", ".bias")))] = tensor
    return made


def interleave(weight: Tensor, heads: int) -> Tensor:
    """Move the rows of each head from two halves, that are rotated as pairs, to pairs of neighbours."""
    halves = weight.view(heads, 2, -1, weight.shape[-1])
    return halves.transpose(1, 2).reshape(weight.shape)


def _write_settings(writer: Any, model: ExportedModel, settings: dict[str, Any]) -> None:
    writer.add_name(model.name)
    writer.add_context_length(model.max_length)
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_rope_freq_base(settings["rope_theta"])
    writer.add_rope_dimension_count(settings["head_dim"])
    writer.add_key_length(settings["head_dim"])
    writer.add_value_length(settings["head_dim"])
    writer.add_vocab_size(model.vocab_size)


def _compare_tensors(model: ExportedModel, folder: Path) -> None:
    """Read the tensors back; ValueError if one differs by more than its type rounds."""
    import gguf

    read = {each.name: each for each in gguf.GGUFReader(folder / FILE).tensors}
    for name, tensor in name_tensors(model, *fit_shape(model)).items():
        found = torch.tensor(gguf.quants.dequantize(read[name].data, read[name].tensor_type))
        kind = model.options.dtype if tensor.dim() > 1 else torch.float32
        if not torch.equal(found.view(tensor.shape), tensor.to(kind).float()):
            raise ValueError(f"the export of {model.name} is wrong: {name} differs; nothing was written")
