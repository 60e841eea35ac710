"""The guide to exchange: its Python runs as it stands, on exports of tiny runs."""

import re
import shutil
from pathlib import Path

import pytest
from doc_pages import SECTIONS
from tiny_pairs import write_pairs

from lightning_xt.cli import main

SNIPPETS = [
    pytest.param(text, id=f"{section.heading}-{number}")
    for section in SECTIONS
    if section.page == "docs/guides/exchange.md"
    for number, text in enumerate(section.fences("python exported"))
]
STEPS = ["--trainer.max_steps=2", "--validate_every=2", "--model.schedule.init_args.warmup_steps=1"]
PAIRS = ["--data=ParallelText", "--data.path=pairs.en", "--data.target_path=pairs.de", "--data.validation=0.2"]
SIZES = [f"--model.{side}.{size}" for side in ("encoder", "decoder") for size in ("dim=16", "depth=1")]


def make_run(name: str) -> None:
    """Make the small run of a name that the guide trains."""
    if name == "quickstart":
        shutil.copytree("runs/tiny", f"runs/{name}")
    elif name == "llama_small":
        assert main(["fit", "-c", "tiny.yaml", "--name", name, "--model.decoder.feedforward", "SwiGLU"]) == 0
    else:
        write_pairs(Path())
        assert (
            main(["fit", "-c", f"translation/{name}.yaml", *PAIRS, "--data.tokenizer=SpecialBytes", *SIZES, *STEPS])
            == 0
        )


@pytest.mark.slow
@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets_run(text: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"runs/(\w+)/0/export/([\w-]+)", text)
    assert found is not None
    make_run(found[1])
    assert main(["export", f"runs/{found[1]}", "--format", found[2]]) == 0
    capsys.readouterr()
    exec(text, {})
    start = "" if found[1] == "marian_small" else "def main("
    out = capsys.readouterr().out
    assert out.startswith(start) and out.endswith("\n")
