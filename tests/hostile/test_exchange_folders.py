"""Folders of strangers: import runs nothing of them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_xt.cli import main
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.hugging_face_code import HuggingFaceCode
from lightning_xt.training.language_model import LanguageModel

TRAP = "from pathlib import Path\nPath('ran').touch()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that was exported, in the current folder."""
    monkeypatch.chdir(tmp_path)
    module = LanguageModel.from_config({"decoder": {"dim": 16, "depth": 1, "attention": {"heads": 2}}}).eval()
    made = tmp_path / "stranger"
    made.mkdir()
    HuggingFaceCode().write(ExportedModel("model", module, ExportOptions()), made)
    return made


def change(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["lightning_xt"] |= entries
    (folder / "config.json").write_text(json.dumps(config))


def refuse(capsys: pytest.CaptureFixture[str]) -> str:
    """Import the folder, which must be refused with one sentence and without a trace, and return the sentence."""
    assert main(["import", "stranger"]) == 2
    assert not Path("ran").exists() and not Path("runs").exists()
    return capsys.readouterr().err


def test_python_files_are_not_run(folder: Path) -> None:
    for name in ("modeling_lightning_xt.py", "configuration_lightning_xt.py", "numpy.py", "__init__.py"):
        (folder / name).write_text(TRAP)
    assert main(["import", "stranger"]) == 0
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "path", ["os.system", "subprocess.Popen", "builtins.eval", "torch.load", "transformers.Trainer", "torch.nn.Linear"]
)
def test_other_classes_are_not_models(path: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, class_path=path, init_args={"args": "touch ran", "f": "ran"})
    assert path in refuse(capsys)


@pytest.mark.parametrize(
    "entry",
    [
        {"decoder": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}},
        {"decoder": {"attention": {"class_path": "os.system", "init_args": {"command": "touch ran"}}}},
        {"decoder": {"dim": 16}, "optimizer": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "ran"}}},
    ],
)
def test_options_name_parts_only(entry: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, init_args={"vocab": {"target": 256}, **entry})
    assert "cannot be read as a model of lightning-xt" in refuse(capsys)


def test_tokenizers_are_tokenizers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, tokenizers={"text": {"class_path": "pathlib.Path.touch", "init_args": {"self": "ran"}}})
    assert "pathlib.Path.touch is not imported" in refuse(capsys)


def test_a_deep_description_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"decoder": deep}
    change(folder, init_args=deep)
    assert "nested more than" in refuse(capsys)


def test_pickled_weights_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "which is pickled: to load it could run any code" in refuse(capsys)


def test_shards_outside_the_folder_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").rename("elsewhere.safetensors")
    index = {"weight_map": {"a": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "is not a file of its folder" in refuse(capsys)


def test_transformers_asks_before_it_runs_code(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    before = set(sys.modules)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    assert not any(name.startswith("transformers_modules") for name in set(sys.modules) - before)
