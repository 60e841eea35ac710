"""Every cell of every notebook runs.

`python tests/test_notebooks.py [NAME ...]` runs notebooks and writes their outputs into them.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
IN_DEFAULT_SUITE = ("tour",)


def run(notebook: dict[str, Any], name: str) -> Iterator[tuple[dict[str, Any], str, object, list[bytes]]]:
    """Run the code cells; yield each with what it printed, its last value and its figures as PNG."""
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        body = ast.parse("".join(cell["source"])).body
        last = ast.Expression(body.pop().value) if body and isinstance(body[-1], ast.Expr) else None
        printed, value = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            exec(compile(ast.Module(body, []), name, "exec"), names)
            if last is not None:
                value = eval(compile(last, name, "eval"), names)
        if "".join(cell["source"]).endswith(";"):
            value = None
        figures = []
        for number in plt.get_fignums():
            image = io.BytesIO()
            plt.figure(number).savefig(image, format="png", dpi=70, bbox_inches="tight")
            figures.append(image.getvalue())
        plt.close("all")
        yield cell, printed.getvalue(), value, figures


@pytest.mark.parametrize(
    "notebook",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in IN_DEFAULT_SUITE else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
)
def test_runs_from_top_to_bottom(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begun = time.process_time()
    drawn = [figures for *_, figures in run(json.loads(notebook.read_text()), notebook.name)]
    assert any(drawn)
    # Two minutes on two cores.
    assert time.process_time() - begun < 240


def test_outputs_are_small() -> None:
    """The plots that are shown without running a notebook are there, and cost little."""
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1_000_000
    for path in NOTEBOOKS:
        outputs = [each for cell in json.loads(path.read_text())["cells"] for each in cell.get("outputs", ())]
        shown = any("image/png" in each.get("data", {}) for each in outputs)
        assert shown, f"python {__file__} {path.stem} writes the outputs"


def write_outputs(path: Path) -> None:
    """Run a notebook in an empty folder, and write its outputs into it."""
    notebook = json.loads(path.read_text())
    for count, (cell, printed, value, figures) in enumerate(run(notebook, path.name), 1):
        found: list[dict[str, Any]] = []
        if printed:
            found.append({"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)})
        if value is not None:
            text = repr(value).splitlines(keepends=True)
            result = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
            found.append({**result, "data": {"text/plain": text}})
        for image in figures:
            data = {"image/png": base64.b64encode(image).decode(), "text/plain": ["<Figure>"]}
            found.append({"output_type": "display_data", "metadata": {}, "data": data})
        cell |= {"outputs": found, "execution_count": count}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    for each in NOTEBOOKS:
        if not sys.argv[1:] or each.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as made:
                os.chdir(made)
                since = time.monotonic()
                write_outputs(each)
                print(f"{each.stem}: {time.monotonic() - since:.0f} seconds, {each.stat().st_size} bytes")
