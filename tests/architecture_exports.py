"""Export of the architectures of `configs/architectures`, with random weights."""

from pathlib import Path

import torch
import yaml
from foreign_models import check_same, randomize
from transformers import AutoModelForCausalLM

from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.hugging_face import HuggingFace
from lightning_xt.system.discovery import import_path
from lightning_xt.training.language_model import LanguageModel

ARCHITECTURES = Path(__file__).parent.parent / "configs" / "architectures"


def check_architecture(name: str, folder: Path) -> None:
    """Export a decoder of bytes after the file of an architecture, and check logits and greedy tokens."""
    options = yaml.safe_load((ARCHITECTURES / f"{name}.yaml").read_text())["model"]["init_args"]
    module = LanguageModel.from_config({**options, "vocab": {"source": 256, "target": 256}}).eval()
    made = {"class_path": import_path(Bytes), "init_args": {}}
    known = {"tokenizers": dict.fromkeys(module.tokenizers, made), "trained_length": 128}
    module.on_load_checkpoint({METADATA_KEY: known})
    randomize(module)
    model = ExportedModel(name, module, ExportOptions())
    folder.mkdir()
    HuggingFace().check(model)
    HuggingFace().write(model, folder)
    assert HuggingFace().verify(model, folder).difference is not None
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    check_same(model.network, theirs, 256)
