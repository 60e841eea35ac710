"""Deferred modules: executed once, whole, at the first use, and plain modules afterwards."""

import importlib
import sys
import threading
from types import ModuleType

import pytest

from lightning_xt.system.deferred_modules import DeferredModule, DeferringFinder, execute, is_executed


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package whose `parts` belongs to its body, and defer it."""
    folder = tmp_path / "slow_package"
    folder.mkdir()
    body = "from slow_package.parts import Part\nruns = [*globals().get('runs', ()), 1]\n__all__ = ['Part']\n"
    (folder / "__init__.py").write_text(body)
    (folder / "parts.py").write_text("import slow_package\n\n\nclass Part:\n    home = slow_package\n")
    (folder / "alone.py").write_text("value = 5\n")
    (folder / "other.py").write_text("from slow_package import Part\n")
    monkeypatch.syspath_prepend(tmp_path)
    finder = DeferringFinder({"slow_package": {"early": lambda: 3}}, ["slow_package.alone"])
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    yield importlib.import_module("slow_package")
    for name in [each for each in sys.modules if each.partition(".")[0] == "slow_package"]:
        del sys.modules[name]


def test_early_names_and_submodules_do_not_execute_it(package):
    from slow_package import early
    from slow_package.alone import value

    assert (early, value, package.early) == (3, 5, 3) and package.alone.value == 5
    assert not hasattr(package, "__warningregistry__")
    assert isinstance(package, DeferredModule) and not is_executed("slow_package")
    assert "runs" not in vars(package)


@pytest.mark.parametrize(
    "use",
    [
        lambda package: package.Part,
        lambda package: dir(package),
        lambda package: package.__all__,
        lambda package: importlib.import_module("slow_package.parts"),
        lambda package: importlib.import_module("slow_package.other"),
        execute,
    ],
)
def test_a_use_executes_it_once(package, use):
    use(package)
    assert is_executed("slow_package") and type(package) is ModuleType
    assert package.runs == [1] and "early" not in vars(package)
    assert sys.modules["slow_package.parts"] is package.parts and package.parts.Part is package.Part
    assert package.Part.home is package and package.parts.__spec__.name == "slow_package.parts"
    assert package.__spec__.loader is package.__loader__ and type(package.__loader__).__name__ == "SourceFileLoader"
    importlib.reload(package)
    assert package.runs == [1, 1]
    with pytest.raises(AttributeError, match="has no attribute 'early'"):
        _ = package.early


def test_an_unknown_name_is_refused_after_its_execution(package):
    with pytest.raises(AttributeError, match="module 'slow_package' has no attribute 'missing'"):
        _ = package.missing
    assert is_executed("slow_package")


def test_threads_wait_for_its_execution(package, tmp_path):
    (tmp_path / "slow_package" / "parts.py").write_text("import time\n\ntime.sleep(0.2)\nPart = 7\n")
    found = []
    threads = [threading.Thread(target=lambda: found.append(package.Part)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [7, 7, 7] and package.runs == [1]


def test_a_failure_is_raised_and_tried_again(package, tmp_path):
    parts = tmp_path / "slow_package" / "parts.py"
    good = parts.read_text()
    parts.write_text("raise RuntimeError('not today')\n")
    with pytest.raises(RuntimeError, match="not today"):
        _ = package.Part
    assert not is_executed("slow_package")
    parts.write_text(good)
    assert package.Part.__name__ == "Part" and package.runs == [1]
