from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.export import load, save

from lightning_xt.exchange.comparison import compare_logits
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.step.step_checks import check_step, explain_failure
from lightning_xt.exchange.step.step_folder import write_description
from lightning_xt.exchange.step.step_program import build_programs, silence_libraries
from lightning_xt.exchange.step.step_scorer import Runner, StepScorer
from lightning_xt.exchange.tokenizers.exported_tokenizers import compare_tokenizers, open_library
from lightning_xt.exchange.verification import Verification


class TorchExport(ExportFormat):
    """Decode step with its cache as a program of torch.export, for an encoder-decoder after the encoder."""

    name: ClassVar = "torch-export"
    summary: ClassVar = "torch without this package, AOTInductor and ExecuTorch; a step with its cache, of most models"

    def check(self, model: ExportedModel) -> None:
        check_step(model)

    def write(self, model: ExportedModel, folder: Path) -> None:
        programs = build_programs(check_step(model), model.max_length)
        for each in programs:
            try:
                traced = each.trace()
            except Exception as error:
                raise explain_failure(model, "traced by torch.export", error) from error
            with silence_libraries():
                save(traced, folder / f"{each.name}.pt2")
        write_description(model, programs, "pt2", folder)

    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        programs = build_programs(check_step(model), model.max_length)
        runners = [_load(folder / f"{each.name}.pt2") for each in programs]
        return compare_logits(model, StepScorer(programs, runners), f"torch.export of torch {torch.__version__}")

    def verify_tokenizers(self, model: ExportedModel, folder: Path) -> list[str]:
        return compare_tokenizers(model, folder, open_library, apart=True)


def _load(file: Path) -> Runner:
    with silence_libraries():
        module = load(file).module()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            outputs: tuple[Tensor, ...] = module(*inputs)
        return outputs

    return run
