"""A variant is one new file: dropped into a copy of the package, everything finds it, with no other edit."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, SECTIONS

MISH = '''
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.nn.activations.base import Activation


class Mish(Activation):
    """Multiply each feature by the tanh of its softplus.

    Misra, 2019. https://arxiv.org/abs/1908.08681
    """

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return x * F.softplus(x).tanh()
'''
(DISTANCE_COST,) = [text for section in SECTIONS for text in section.fences("python variant")]
NEW = {"nn/activations/mish.py": MISH, "nn/positions/distance_cost.py": DISTANCE_COST}
"""New files by their place in the package; the position is the example of CONTRIBUTING.md."""
CLASSES = ("Mish", "DistanceCost")

LOOK = """
import os, sys
from pathlib import Path
sys.path[:0] = ["docs", "tests"]
import build_site
from lightning_xt.cli import main
os.environ["LIGHTNING_XT_DATA"] = "data"
slots = ["--model.decoder.feedforward.activation=Mish", "--model.decoder.attention.position=DistanceCost"]
assert main(["fit", "-c", "configs/language/quickstart.yaml", *slots, "--print_config"]) == 0
build_site.build(Path("site"))
import test_vocabulary
found = [f for f in test_vocabulary.FINDINGS if Path(f.path).stem in ("mish", "distance_cost")]
assert not found, found
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the repository with the new files in it."""
    ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "runs", "*.egg-info", "shared")
    folder = tmp_path / "copy"
    shutil.copytree(ROOT, folder, ignore=ignored)
    for path, text in NEW.items():
        (folder / "lightning_xt" / path).write_text(text)
    return folder


def run(folder: Path, *args: str) -> str:
    """Run Python in the copy, on the copy's package, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    call = [sys.executable, *args]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_line_and_the_reference_find_it(copy: Path) -> None:
    printed = run(copy, "-c", LOOK)
    assert "lightning_xt.Mish" in printed
    assert "lightning_xt.DistanceCost" in printed
    for family, variant in zip(("activations", "positions"), CLASSES, strict=True):
        page = (copy / f"site/pages/reference/{family}.md").read_text()
        assert f"| [{variant}](#{variant.lower()}) | " in page
        assert f"\n## {variant}\n" in page
    tree = (copy / "site/pages/reference/the-tree-of-files.md").read_text()
    assert "| `mish.py` | Multiply each feature by the tanh of its softplus. |" in tree


@pytest.mark.slow
@pytest.mark.parametrize("variant", CLASSES)
def test_the_laws_run_on_it(variant: str, copy: Path) -> None:
    files = [f"tests/test_{name}.py" for name in ("families", "encoder_families", "contracts")]
    printed = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", variant, *files)
    assert int(re.search(r"(\d+) passed", printed)[1]) > 30


@pytest.mark.slow
def test_whatever_looks_at_all_variants_passes(copy: Path) -> None:
    files = [f"tests/test_{name}.py" for name in ("contracts", "vocabulary", "docs")]
    printed = run(
        copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not command and not snippet and not yaml", *files
    )
    assert "passed" in printed
