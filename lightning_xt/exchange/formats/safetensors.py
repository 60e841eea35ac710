from pathlib import Path
from typing import ClassVar

import torch

import lightning_xt
from lightning_xt.exchange.comparison import compare_probe
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.importing import read_folder
from lightning_xt.exchange.own_format.own_folder import write_own_folder
from lightning_xt.exchange.verification import Verification


class Safetensors(ExportFormat):
    """Folder of any model: weights by their names here, a complete config, and the tokenizer."""

    name: ClassVar = "safetensors"
    summary: ClassVar = "lightning-xt import, and every reader of safetensors; any model"

    def check(self, model: ExportedModel) -> None:
        pass

    def write(self, model: ExportedModel, folder: Path) -> None:
        write_own_folder(model, folder, {"architectures": [model.kind]})

    @torch.no_grad()
    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        found = read_folder(folder).module
        read = found.state_dict()
        for name, each in model.module.state_dict().items():
            written = each.to(model.options.dtype) if each.is_floating_point() else each
            if not torch.equal(written.to(each.dtype), read[name]):
                raise ValueError(f"the export of {model.name} is wrong: {name} differs; nothing was written")
        return compare_probe(model, found.network, f"lightning-xt {lightning_xt.__version__}")
