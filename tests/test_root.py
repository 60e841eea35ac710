"""Names of the package itself: every variant, imported when it is used, typed, and with examples that run."""

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from catalogue import FAMILIES, list_variants

import lightning_xt
from lightning_xt.data.base import DataModule
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.methods.base import Method
from lightning_xt.objectives.auxiliaries.base import Auxiliary
from lightning_xt.objectives.base import Objective
from lightning_xt.system.public_names import list_public
from lightning_xt.training.optim.orthogonalizers.base import Orthogonalizer
from lightning_xt.training.optim.schedules.base import Schedule

BASES = [
    *(family for family, _ in FAMILIES.values()),
    DataModule,
    Tokenizer,
    Filter,
    Method,
    Objective,
    Auxiliary,
    Orthogonalizer,
    Schedule,
]
WITH_EXAMPLES = [name for name in list_public() if ">>> " in (inspect.getdoc(getattr(lightning_xt, name)) or "")]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_cases_n10_every_variant_is_a_name_of_the_package(base):
    variants = list_variants(base)
    assert variants
    for variant in variants:
        assert getattr(lightning_xt, variant.__name__) is variant
        assert variant.__name__ in dir(lightning_xt)


def test_cases_n10_names_are_imported_when_they_are_used():
    code = "import sys, lightning_xt\nassert 'torch' not in sys.modules\n"
    code += "from lightning_xt import ALiBi, Decoder, generate\n"
    code += "assert ALiBi.__module__ == 'lightning_xt.nn.positions.alibi'\nassert 'lightning' not in sys.modules\n"
    code += "assert hasattr(lightning_xt, 'TextFiles') and 'lightning' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["Alibi", "alibi", "attention", "Where", "_TopK", "__wrapped__"])
def test_cases_n10_other_names_are_not_there(name):
    assert not hasattr(lightning_xt, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}'"):
        exec(f"from lightning_xt import {name}")


def test_cases_n10_a_star_imports_all_names():
    found = {}
    exec("from lightning_xt import *", found)
    assert {"ALiBi", "Decoder", "LanguageModel", "TextFiles", "generate", "MuonAdamW"} < found.keys()
    assert set(list_public()) == found.keys() - {"__builtins__"}


def test_cases_n10_the_package_is_typed():
    file = Path(lightning_xt.__file__)
    assert (file.parent / "py.typed").is_file()
    for module, name in re.findall(r"from (lightning_xt\S+) import (\w+) as \2", file.read_text()):
        assert getattr(sys.modules[module], name) is getattr(lightning_xt, name)


def test_cases_n10_what_people_begin_with_has_examples():
    first = {"Decoder", "Encoder", "EncoderDecoder", "Inputs", "LanguageModel", "Seq2Seq", "generate"}
    assert first | {"CopyTask", "Multi30k", "ParallelText", "StandardLibrary", "TextFiles"} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_cases_n10_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path))
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(getattr(lightning_xt, name), name):
        runner.run(test)
    assert runner.failures == 0 < runner.tries


def test_the_top_level_holds_what_is_named():
    root = Path(lightning_xt.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {"lightning_xt", "configs", "tests", "notebooks", "docs", "benchmarks", ".ci"}
    files = {"pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", ".gitignore"}
    assert {name.partition("/")[0] for name in listed} <= folders | files
