"""Calls are checked against the shapes that their annotations state, in the tests that `shape_checks` chooses."""

import os
import sys
from pathlib import Path

# Tests, and the processes that they start, use this checkout, not an installed package.
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

# One thread a process: threads that wait for a busy core slow tiny steps tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

if not os.environ.get("LIGHTNING_XT_NO_SHAPE_CHECKS"):
    checked = [f"lightning_xt.{name}" for name in ("core", "nn", "models", "objectives", "generation")]
    install_import_hook(checked, "beartype.beartype")

import shutil
from collections.abc import Iterator

import built_once
import shape_checks
import torch
from pair_report import PairReport
from tiny_pairs import write_pairs
from tiny_run import write_inputs

import lightning_xt
from lightning_xt.cli import main
from lightning_xt.system.discovery import import_submodules

import_submodules(lightning_xt)
built_once.install()
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slice", metavar="K/N", help="run every N-th test only, from the K-th on")
    parser.addoption("--all-shape-checks", action="store_true", help="check shapes in every case of every test")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(PairReport(config))


SHAPES = pytest.StashKey[set[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    jaxtyping_config.update("jaxtyping_disable", item.nodeid not in item.config.stash[SHAPES])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[SHAPES] = shape_checks.choose(items, everywhere=config.getoption("--all-shape-checks"))
    # The longest tests begin first, or one process would still run them when the others are done.
    items.sort(key=lambda item: not item.name.startswith(("test_compile", "test_a_run_that_is_disturbed")))
    if config.getoption("--slice"):
        first, step = map(int, config.getoption("--slice").split("/"))
        items[:] = items[first::step]


@pytest.fixture
def no_shape_checks() -> None:
    """Check no annotations: a user's calls meet the checks of the package only."""
    jaxtyping_config.update("jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _modules(tmp_path_factory) -> Iterator[None]:
    """Forget the modules of a test's folder: a later test has others of these names."""
    before, folder = set(sys.modules), str(tmp_path_factory.getbasetemp())
    yield
    for name in sys.modules.keys() - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Restore the environment: Lightning's variables (LOCAL_RANK) would make a later test wait forever."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ |= before


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return a folder with the run runs/tiny/0."""
    folder, here = tmp_path_factory.mktemp("finished"), Path.cwd()
    write_inputs(folder)
    os.chdir(folder)
    try:
        assert main(["fit", "-c", "tiny.yaml"]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def trained(finished, tmp_path, monkeypatch):
    """Return a copy of the folder with runs/tiny/0, as the current folder."""
    folder = shutil.copytree(finished, tmp_path / "trained")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of a translator."""
    folder, here = tmp_path_factory.mktemp("pairs"), Path.cwd()
    write_pairs(folder)
    os.chdir(folder)
    try:
        assert main(["fit", "-c", "pairs.yaml"]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a corpus, as the current folder."""
    (tmp_path / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path
