"""The config and the tokenizer of a run from whose weights another starts."""

from pathlib import Path

import pytest
import yaml

from lightning_xt.checkpoints.runs import MARKS
from lightning_xt.commands.trainer.run_choice import add_config_of_run

LEARNED = {"class_path": "BPE", "init_args": {"vocab_size": 300, "file": None, "model": None}}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the run runs/base/0 that has learned sub-words, as far as a choice of it looks."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/base/0")
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/best.ckpt").touch()
    (run / "text_tokenizer.json").touch()
    data = {"class_path": "TextFiles", "init_args": {"tokenizer": LEARNED}}
    (run / "config.yaml").write_text(yaml.safe_dump({**dict.fromkeys(MARKS, "base"), "data": data}))
    Path("overlay.yaml").write_text("model: {init_args: {adapter: LoRA}}\n")
    return run


def test_fine_tuning_keeps_the_sub_words_of_the_base(base: Path) -> None:
    args = ["-c", "overlay.yaml", "--init_from", "runs/base"]
    config, tokenizer = str(base / "config.yaml"), str(base / "text_tokenizer.json")
    expected = ["-c", config, *args, "--name", "overlay", "--data.tokenizer.file", tokenizer]
    assert add_config_of_run("fit", args) == expected


@pytest.mark.parametrize(
    ("overlay", "more"),
    [
        ("data: {init_args: {tokenizer: Bytes}}", []),
        ("data: {tokenizer: Bytes}", []),
        ("trainer: {max_steps: 2}", ["--data.tokenizer=Bytes"]),
        ("trainer: {max_steps: 2}", ["--data.tokenizer.file", "other.json"]),
    ],
)
def test_another_tokenizer_can_be_chosen(overlay: str, more: list[str], base: Path) -> None:
    Path("overlay.yaml").write_text(overlay)
    found = add_config_of_run("fit", ["-c", "overlay.yaml", "--init_from", "runs/base", *more])
    assert str(base / "text_tokenizer.json") not in found


def test_a_base_that_names_its_tokenizer_keeps_that(base: Path) -> None:
    text = (base / "config.yaml").read_text()
    (base / "config.yaml").write_text(text.replace("file: null", "file: mine.json"))
    found = add_config_of_run("fit", ["-c", "overlay.yaml", "--init_from", "runs/base"])
    assert "--data.tokenizer.file" not in found
