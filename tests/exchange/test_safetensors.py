"""safetensors: any model of this package as a folder, and back to the same bits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import export_run, randomize
from safetensors.torch import load_file, save_file

from lightning_xt.cli import main
from lightning_xt.commands.models.loading import load
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.safetensors import Safetensors
from lightning_xt.exchange.importing import read_folder
from lightning_xt.system.messages import UserError
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.seq2seq import Seq2Seq

SIZES = {"dim": 16, "depth": 1, "attention": {"heads": 2}}


class OwnModel(LanguageModel):
    """Model that a user wrote."""


def write(module: TransformerModule, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a folder, and compare it with the model."""
    folder.mkdir()
    model = ExportedModel("model", module.eval(), ExportOptions(dtype))
    Safetensors().write(model, folder)
    found = Safetensors().verify(model, folder)
    assert found.difference == 0.0 or dtype != torch.float32
    return folder


def build(kind: type[Any], **options: Any) -> Any:
    parts = ("encoder", "decoder") if kind is Seq2Seq else ("encoder",) if kind is MaskedLanguageModel else ("decoder",)
    return kind.from_config({**dict.fromkeys(parts, SIZES), **options})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (
            LanguageModel,
            {"objective": {"class_path": "NextToken", "init_args": {"auxiliaries": ["MultiTokenPrediction"]}}},
        ),
        (Seq2Seq, {"shared_embedding": True}),
        (MaskedLanguageModel, {}),
        (OwnModel, {}),
    ],
)
def test_it_comes_back_as_it_was(
    kind: type[Any], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_XT_ALLOW", __name__.partition(".")[0])
    module = build(kind, **options)
    module._trained_length = 37
    back = read_folder(write(module, tmp_path / "out")).module
    assert type(back) is kind
    assert back.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(each, module.state_dict()[name]) for name, each in back.state_dict().items())
    assert dict(back.hparams) == {**module.hparams, "_class_path": dict(back.hparams)["_class_path"]}
    assert back.trained_length == 37
    assert [type(each) for each in back.tokenizers.values()] == [type(each) for each in module.tokenizers.values()]


def test_a_run_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, tokenizer = build(LanguageModel), BPE(300, specials="none")
    tokenizer.train(lambda: ["the quick brown fox " * 9])
    module._trained_with = {"text": tokenizer}
    write(module, tmp_path / "out", torch.bfloat16)
    assert main(["import", "out", "--name", "back"]) == 0
    back = load("runs/back").cpu()
    assert back.tokenizers["text"].init_args == tokenizer.init_args
    assert all(
        torch.equal(each, module.state_dict()[name].bfloat16().float()) for name, each in back.state_dict().items()
    )
    again = export_run(Path("runs/back"), tmp_path / "again", "--dtype", "bfloat16", form="safetensors")
    first, second = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", again))
    assert all(torch.equal(each, second[name]) and each.dtype == torch.bfloat16 for name, each in first.items())


def test_the_tokenizer_of_a_target_has_a_separate_folder(tmp_path: Path) -> None:
    module = build(Seq2Seq)
    source, target = BPE(300), BPE(310)
    for each, text in ((source, "ein Haus"), (target, "a house")):
        each.train(lambda text=text: [text])
    module._trained_with = {"source": source, "target": target}
    folder = write(module, tmp_path / "out")
    assert (folder / "tokenizer.json").is_file() and (folder / "target" / "tokenizer.json").is_file()
    assert read_folder(folder).module.tokenizers["target"].trained_state == target.trained_state


def test_a_folder_with_other_logits_is_refused(tmp_path: Path) -> None:
    module = build(LanguageModel).eval()
    randomize(module)
    model, form = ExportedModel("runs/x", module, ExportOptions()), Safetensors()
    form.write(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["lightning_xt"]["init_args"]["decoder"]["init_args"]["norm"] = {
        "class_path": "lightning_xt.RMSNorm",
        "init_args": {"eps": 0.5},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"the logits of lightning-xt .* differ by"):
        form.verify(model, tmp_path)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write(build(LanguageModel), tmp_path / "out")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["more"] = tensors.pop("decoder.head.to_logits.weight")
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"to_logits.weight is missing; more is left over"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init_args": None}, "lightning_xt has no class_path and init_args of a model; export the model again"),
        ({"class_path": 3}, "lightning_xt has no class_path and init_args"),
        ({"format": 99}, "the checkpoint has format 99"),
        ({"tokenizers": {"text": 3}}, "its lightning_xt.tokenizers.text is 3, not a mapping; export"),
        ({"trained_length": "x"}, "its lightning_xt.trained_length is 'x', not a whole number"),
        (
            {"init_args": {"vocab": {"target": 9}, "decodr": {}}},
            "model: unknown option of LanguageModel 'decodr'; did you mean decoder",
        ),
    ],
)
def test_malformed_descriptions_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write(build(LanguageModel), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    config["lightning_xt"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        read_folder(folder)
