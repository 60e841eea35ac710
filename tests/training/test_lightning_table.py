"""The table of Lightning's names in the docs: complete, and each line is true."""

import inspect
import re
import shlex
import typing
from importlib.util import find_spec
from pathlib import Path

import lightning.pytorch.accelerators
import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import lightning.pytorch.plugins
import lightning.pytorch.plugins.environments
import lightning.pytorch.profilers
import lightning.pytorch.strategies
import pytest
import torch
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from tiny_run import load_weights

from lightning_xt.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "lightning.md"
ROW = re.compile(r"\| `([^`]+)` \|(?: `([^`]+)`)? \| (.+?) \|")
OWN = """
def size(batch):
    return len(batch)


def note(*args):
    pass
"""


def list_names(module):
    return set(getattr(module, "__all__", None) or [name for name in vars(module) if name[0].isupper()])


def list_classes(module):
    return {name for name in list_names(module) if inspect.isclass(getattr(module, name, None))}


PUBLIC = {
    "Callbacks": set(lightning.pytorch.callbacks.__all__),
    "Loggers": set(lightning.pytorch.loggers.__all__),
    "Profilers": set(lightning.pytorch.profilers.__all__),
    "Plugins": set(lightning.pytorch.plugins.__all__),
    "Environments": list_classes(lightning.pytorch.plugins.environments),
    "Strategies": set(lightning.pytorch.strategies.__all__) | set(StrategyRegistry),
    "Accelerators and precisions": {
        "auto",
        *AcceleratorRegistry,
        *(str(name) for each in typing.get_args(_PRECISION_INPUT) for name in typing.get_args(each)),
    },
    "Flags of the Trainer": set(inspect.signature(Trainer).parameters),
}
SECTIONS = {
    title: ROW.findall(text)
    for title, _, text in (each.partition("\n") for each in PAGE.read_text().split("\n## ")[1:])
}
TRIED = [
    (section, name, options, outcome)
    for section, rows in SECTIONS.items()
    for name, options, outcome in rows
    if not outcome.startswith(("base class", "works with such"))
]
FIRST = {outcome: name for _, name, _, outcome in reversed(TRIED) if outcome.startswith("refused: ")}
ROWS = [
    # Most are tried one by one in the slow suite only.
    pytest.param(section, options, outcome, id=name, marks=() if FIRST.get(outcome) == name else pytest.mark.slow)
    for section, name, options, outcome in TRIED
]


@pytest.mark.parametrize("section", PUBLIC)
def test_every_public_name_has_a_line(section):
    assert PUBLIC.keys() == SECTIONS.keys()
    names = [name for name, _, _ in SECTIONS[section]]
    assert sorted(names) == sorted(PUBLIC[section])
    assert PAGE.read_text().count("\n| `") == sum(map(len, SECTIONS.values()))


@pytest.fixture(scope="module")
def plain(finished):
    return torch.load(finished / "runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]


# Lightning warns of a short profile, of old names and of float16 on CPUs, and a profiler that it refuses fails to end.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("section", "options", "outcome"), ROWS)
def test_a_line_is_true(section, options, outcome, fresh, plain, capsys):
    if (missing := re.match(r"refused without the package `([\w-]+)`", outcome)) and find_spec(
        missing[1].replace("-", "_")
    ):
        pytest.skip(f"{missing[1]} is installed")
    (fresh / "own.py").write_text(OWN)
    code = main(["fit", "-c", "tiny.yaml", *shlex.split(options)])
    error = capsys.readouterr().err
    if outcome.startswith("refused"):
        assert code == 2
        assert (missing[1] if missing else outcome.removeprefix("refused: ")) in error
        assert not Path("runs").exists()
    else:
        assert outcome.startswith("works")
        assert code == 0, error
        check_equal(section, plain)


def check_equal(section, plain):
    if section in ("Callbacks", "Loggers", "Profilers"):
        weights = load_weights()
        assert all(torch.equal(weights[name], plain[name]) for name in plain)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("section", ["Callbacks", "Loggers"])
def test_all_that_works_together(section, fresh, plain, capsys):
    (fresh / "own.py").write_text(OWN)
    given = [words for each, name, words, outcome in TRIED if each == section and outcome.startswith("works")]
    # A Trainer has one progress bar.
    options = [words for words in given if "RichProgressBar" not in words]
    assert len(options) > 1
    assert main(["fit", "-c", "tiny.yaml", *shlex.split(" ".join(options))]) == 0, capsys.readouterr().err
    check_equal(section, plain)
