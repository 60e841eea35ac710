"""Imports that are refused."""

from pathlib import Path

import pytest

from lightning_xt.cli import main


def check_refused(given: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that an import ends in one sentence, and that there is no run."""
    assert main(["import", *given, "--output", str(folder / "runs")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("lightning-xt: error: ")
    assert error.count("\n") == 1 and len(error) < 2000
    assert not (folder / "runs").exists()
