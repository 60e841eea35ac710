"""export_run: what it checks for every format, and when it prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from step_models import language_model

from lightning_xt.commands.transfer import export_run as command
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.system.messages import UserError

POSITIONS = {"class_path": "LearnedPositions", "init_args": {"max_length": 10}}


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run have a model of 10 positions."""
    monkeypatch.setattr(command, "load", lambda run, device: language_model(embeddings=[POSITIONS]).eval())


@pytest.mark.parametrize("form", [None, "hf-code", "torch-export", "safetensors"])
def test_more_tokens_than_positions_are_refused(form: str | None, tmp_path: Path) -> None:
    with pytest.raises(MisfitError, match="--tokens is 11, but the positions of runs/x end at 10; give at most 10"):
        command.export_run("runs/x", form, str(tmp_path / "out"), "float32", 11)
    assert not (tmp_path / "out").exists()


def test_few_positions_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.export_run("runs/x", "safetensors", str(tmp_path / "out"), "float32", None) == 0
    checked, tokenizer, folder = capsys.readouterr().out.splitlines()
    assert checked.startswith("checked with lightning-xt ") and "(tolerance 1e-04)" in checked
    assert tokenizer.startswith("tokenizer: tokenizers ") and folder == f"export={tmp_path / 'out'}"


def test_nothing_is_printed_before_the_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def fail_at_the_end(*given: Any) -> Iterator[Path]:
        yield tmp_path
        raise UserError("--output exists already")

    monkeypatch.setattr(command, "write_folder", fail_at_the_end)
    with pytest.raises(UserError):
        command.export_run("runs/x", "safetensors", str(tmp_path / "out"), "float32", None)
    assert not capsys.readouterr().out
