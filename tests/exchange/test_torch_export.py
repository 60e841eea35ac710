"""Exported steps of torch.export: the same logits and tokens, free sizes, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from step_models import export, language_model, translator
from torch import nn

from lightning_xt import LanguageModel, MaskedLanguageModel
from lightning_xt.exchange.formats.torch_export import TorchExport
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.step.step_program import build_programs

pytestmark = pytest.mark.usefixtures("no_shape_checks")


def test_a_language_model_gives_the_same_logits_and_tokens(tmp_path: Path) -> None:
    model, form = export(language_model()), TorchExport()
    form.check(model)
    form.write(model, tmp_path)
    found = form.verify(model, tmp_path)
    assert found.difference is not None and found.difference < 1e-5 and found.tokens == 24
    about = json.loads((tmp_path / "step.json").read_text())
    (tokenizer,) = about["tokenizers"].values()
    assert about["capacity"] == 40 and tokenizer["file"] == "tokenizer.json" and tokenizer["vocab_size"] == 256
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "step.pt2").read_bytes()
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    with pytest.raises(ValueError, match="export of runs/it is wrong"):
        form.verify(model, tmp_path)


@torch.no_grad()
def test_rows_of_other_lengths_are_padded_on_the_right() -> None:
    network = language_model().double().eval().network
    (program,) = build_programs(network, 12)  # type: ignore[arg-type]
    step, rows = program.trace().module(), torch.randint(0, 256, (3, 9))
    cache = [each.new_zeros(3, *each.shape[1:]) for each in program.examples[2:]]
    kept = torch.tensor([5, 2, 4])
    first, *cache = step(rows[:, :5], torch.zeros(3, dtype=torch.long), *cache)
    new = torch.stack([row[start : start + 4] for row, start in zip(rows, kept, strict=True)])
    second, *cache = step(new, kept, *cache)
    for row, length in enumerate(kept.tolist()):
        expected = network(rows[row : row + 1, : length + 4])[0]
        made = torch.cat((first[row, :length], second[row]))
        torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-9)


def test_a_translator_gives_the_same_logits_and_tokens(tmp_path: Path) -> None:
    model, form = export(translator()), TorchExport()
    form.check(model)
    form.write(model, tmp_path)
    found = form.verify(model, tmp_path)
    assert found.difference is not None and found.difference < 1e-5 and found.tokens == 24
    about = json.loads((tmp_path / "step.json").read_text())
    assert list(about["programs"]) == ["encoder", "step"]
    assert [each["name"] for each in about["programs"]["encoder"]["outputs"]] == ["context_1_keys", "context_1_values"]
    assert about["programs"]["step"]["limits"] == {
        "batch": {"least": 1, "most": None},
        "source": {"least": 1, "most": None},
        "tokens": {"least": 1, "most": 40},
    }


@pytest.mark.parametrize(
    ("decoder", "options", "message"),
    [
        ({"segments": "SegmentRecurrence"}, {}, "model.decoder.segments of runs/it is SegmentRecurrence, whose memor"),
        ({"norm": {"class_path": "AdaptiveRMSNorm", "init_args": {"condition_dim": 3}}}, {}, "AdaptiveRMSNorm in runs"),
        ({}, {"dtype": torch.bfloat16}, "--dtype is bfloat16, but exported steps compute in float32; omit it"),
    ],
    ids=["segments", "condition", "dtype"],
)
def test_a_model_that_does_not_fit_is_refused_by_name(
    decoder: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MisfitError, match=message):
        TorchExport().check(export(language_model(**decoder), **options))


def test_models_without_a_causal_step_are_refused_by_name() -> None:
    encoder = {"dim": 16, "depth": 1, "attention": {"heads": 2}}
    with pytest.raises(MisfitError, match="runs/it is a MaskedLanguageModel, which has no decode step"):
        TorchExport().check(export(MaskedLanguageModel.from_config({"encoder": encoder})))
    objective = {"class_path": "PrefixNextToken"}
    prefix = LanguageModel.from_config({"decoder": {"dim": 16, "depth": 1}, "objective": objective})
    with pytest.raises(MisfitError, match=r"runs/it is a prefix language model \(model.objective\)"):
        TorchExport().check(export(prefix))


class Fickle(nn.Module):
    """Activation that depends on values, so that it cannot be traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_part_that_cannot_be_traced_is_named(tmp_path: Path) -> None:
    module = language_model()
    module.decoder.dropout = Fickle()  # type: ignore[assignment]
    with pytest.raises(MisfitError, match=r"cannot be traced by torch.export .*; the part in the way is Fickle"):
        TorchExport().write(export(module), tmp_path)
    assert not list(tmp_path.iterdir())
