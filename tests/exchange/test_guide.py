"""The guide to exchange: its Python runs as it stands, on exports of tiny runs."""

import shutil
from pathlib import Path

import pytest
from doc_pages import SECTIONS

from lightning_xt.cli import main

SNIPPETS = [
    pytest.param(text, id=section.heading)
    for section in SECTIONS
    if section.page == "docs/guides/exchange.md"
    for text in section.fences("python exported")
]


@pytest.mark.slow
@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets_run(text: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = "hf-code" if "hf-code" in text else "hf"
    name = "quickstart" if form == "hf-code" else "llama_small"
    if form == "hf":
        assert main(["fit", "-c", "tiny.yaml", "--name", name, "--model.decoder.feedforward", "SwiGLU"]) == 0
    else:
        shutil.copytree("runs/tiny", f"runs/{name}")
    assert main(["export", f"runs/{name}", "--format", form]) == 0
    capsys.readouterr()
    exec(text, {})
    assert capsys.readouterr().out.startswith("def main(")
