"""Exported steps of ONNX: the same logits and tokens, and the loop of the guide."""

import importlib.util
import json
import re
from pathlib import Path

import onnx
import pytest
import torch
from doc_pages import ROOT, read_sections
from step_models import export, language_model, translator

from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.formats.onnx import ONNX
from lightning_xt.exchange.misfit import MisfitError

pytestmark = pytest.mark.usefixtures("no_shape_checks")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportedModel, Path]:
    """Return a language model and the folder of its export."""
    model, folder = export(language_model()), tmp_path_factory.mktemp("onnx")
    ONNX().check(model)
    ONNX().write(model, folder)
    return model, folder


def test_a_language_model_gives_the_same_logits_and_tokens(written: tuple[ExportedModel, Path]) -> None:
    model, folder = written
    found = ONNX().verify(model, folder)
    assert found.difference is not None and found.difference < 1e-5 and found.tokens == 24
    assert found.reader.startswith("onnxruntime ")
    assert str(ROOT).encode() not in (folder / "step.onnx").read_bytes()
    about = json.loads((folder / "step.json").read_text())["programs"]["step"]
    graph = onnx.load(folder / "step.onnx").graph
    for ports, values in ((about["inputs"], graph.input), (about["outputs"], graph.output)):
        shapes = [[axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in values]
        assert [port["name"] for port in ports] == [each.name for each in values]
        assert [port["shape"] for port in ports] == shapes


def test_the_loop_of_the_guide_generates_what_the_model_does(
    written: tuple[ExportedModel, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = written
    page = ROOT / "docs" / "guides" / "exchange.md"
    (text,) = [text for section in read_sections(page) for text in section.fences("python step")]
    assert not re.search(r"lightning_xt|torch", text)
    monkeypatch.chdir(folder)
    names: dict[str, list[int]] = {}
    exec(compile(text, page, "exec"), names)
    prompt = torch.tensor([list(b"def main(")])
    expected = model.module.generate(prompt, max_new_tokens=32, temperature=0.0)[0].tolist()
    assert names["generated"][:31] == expected[:31]
    assert capsys.readouterr().out


@pytest.mark.slow
def test_a_translator_gives_the_same_logits_and_tokens(tmp_path: Path) -> None:
    model = export(translator())
    ONNX().write(model, tmp_path)
    found = ONNX().verify(model, tmp_path)
    assert found.difference is not None and found.difference < 1e-5 and found.tokens == 24


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MisfitError, match=r"needs onnx and onnxscript; pip install 'lightning-xt\[onnx\]'"):
        ONNX().check(export(language_model()))
