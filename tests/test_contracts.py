"""Contracts of variants and files: documentation, options, names, sizes, and the imports of the package."""

import ast
import builtins
import collections
import graphlib
import inspect
import itertools
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace

import docstring_parser
import pytest
import shape_checks
from catalogue import FAMILIES, list_variants

import lightning_xt
from lightning_xt.data.base import DataModule
from lightning_xt.data.denoisers.base import Denoiser
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.methods.base import Method
from lightning_xt.nn.adapters.base import Adapter
from lightning_xt.objectives.auxiliaries.base import Auxiliary
from lightning_xt.objectives.base import Objective
from lightning_xt.system.discovery import find_variants, init_parameters

ROOT = Path(__file__).parents[1] / "lightning_xt"
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")
BASES = list(
    dict.fromkeys(
        [
            *(family for family, _ in FAMILIES.values()),
            Objective,
            Auxiliary,
            Denoiser,
            Filter,
            Method,
            DataModule,
            Adapter,
        ]
    )
)
VARIANTS = [pytest.param(v, id=v.__name__) for base in BASES for v in list_variants(base)]
PAIRS = [
    pytest.param(a, b, id=f"{a.__name__}-{b.__name__}")
    for base in BASES
    for a, b in itertools.combinations(list_variants(base), 2)
]

# Imports point down this list, and never sideways; within nn, mixers stand on attention, attention on the other
# families, those on norms.
LAYERS: list[set[str]] = [
    {"system"},
    {"core"},
    {"nn"},
    {"models"},
    {"data", "generation", "objectives", "checkpoints"},
    {"inference"},
    {"server"},
    {"training"},
    {"exchange"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
# Families that are built from another.
FAMILY_LAYERS: list[set[str]] = [{"norms", "activations", "rope_scalings"}, set(), {"attention"}, {"mixers"}]


options = init_parameters


def find_documented(variant: type) -> set[str]:
    """Return the options in the docstrings of a class and of the bases whose options it passes on."""
    found: set[str] = set()
    for kind in (kind for kind in variant.__mro__ if "__init__" in vars(kind) or kind is variant):
        found |= {each.arg_name for each in docstring_parser.parse(inspect.getdoc(kind) or "").params}
        parameters = inspect.signature(kind).parameters.values()
        passed_on = {p.name for p in parameters if p.kind is p.VAR_KEYWORD}
        if "__init__" in vars(kind) and not passed_on:
            return found
        found -= passed_on
    return found


def list_given(variant: type) -> set[str]:
    """Return the parameters of a variant that its parent gives, which its family's factory describes."""
    base = next(base for base in BASES if issubclass(variant, base))
    factory = getattr(sys.modules[base.__module__], f"{base.__name__}Factory", None)
    return set(itertools.islice(options(variant), len(typing.get_args(factory)[0]) if factory else 0))


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_a_factory_says_what_it_is_called_with(base: type) -> None:
    module = sys.modules[base.__module__]
    factory = getattr(module, f"{base.__name__}Factory", None)
    if factory is None or not typing.get_args(factory)[0]:
        return
    tree = ast.parse(inspect.getsource(module)).body
    (at,) = [n for n, node in enumerate(tree) if ast.unparse(node).startswith(f"{base.__name__}Factory = ")]
    assert at + 1 < len(tree) and ast.unparse(tree[at + 1]).startswith(('"""Called with', "'Called with"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_documents_every_option(variant: type) -> None:
    documentation = docstring_parser.parse(inspect.getdoc(variant) or "")
    assert find_documented(variant) | list_given(variant) == set(options(variant))
    assert documentation.short_description
    assert documentation.short_description.endswith((".", ":")) or documentation.long_description


@pytest.mark.parametrize("variant", VARIANTS)
def test_lives_in_a_file_of_its_name(variant: type) -> None:
    stem = Path(inspect.getfile(variant)).stem
    assert stem.replace("_", "") == variant.__name__.lower()


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_final(variant: type) -> None:
    """Variants are never subclassed; common code of two is an abstract class."""
    assert list(find_variants(variant)) == []


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_shared_options_share_their_default(a: type, b: type) -> None:
    """Options of one name share their default, because a changed class in YAML keeps them, defaults included."""
    mine, theirs = options(a), options(b)
    shared = mine.keys() & theirs.keys()
    assert {name: mine[name].default for name in shared} == {name: theirs[name].default for name in shared}


@pytest.mark.parametrize("base", [pytest.param(base, id=base.__name__) for base in BASES])
def test_variants_of_a_family_are_found(base: type) -> None:
    assert len(list_variants(base)) >= 1
    assert all(not inspect.isabstract(v) for v in list_variants(base))


def find_imports(path: Path) -> list[str]:
    """Modules of the package that a file imports, as paths below its root."""
    tree = ast.parse(path.read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return [name.removeprefix("lightning_xt.") for name in names if name.startswith("lightning_xt.")]


def rank(layers: list[set[str]], name: str) -> int:
    middle = next((i for i, layer in enumerate(layers) if not layer), None)
    found_at = next((i for i, layer in enumerate(layers) if name in layer), middle)
    assert found_at is not None, f"{name} has no place among {layers}"
    return found_at


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in find_imports(path):
        target = name.split(".")
        if target[0] != parts[0]:
            assert rank(LAYERS, target[0]) < rank(LAYERS, parts[0]), f"must not import {name}"
        elif parts[0] == "nn" and len(parts) > 2 and target[1] != parts[1]:
            assert rank(FAMILY_LAYERS, target[1]) < rank(FAMILY_LAYERS, parts[1]), f"must not import {name}"


def find_folder(module: str) -> str:
    """Return the folder of its room that a module is in, or the module itself if it is in none."""
    room, *inner = module.split(".")
    return f"{room}.{inner[0]}" if len(inner) > 1 else module


def test_folders_of_a_room_import_each_other_in_one_direction() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    graph: dict[str, set[str]] = collections.defaultdict(set)
    for module, path in modules.items():
        targets = {find_folder(name) for name in find_imports(path) if name in modules}
        graph[find_folder(module)] |= targets - {find_folder(module)}
    # Raises CycleError, which names the circle.
    graphlib.TopologicalSorter(graph).prepare()


def test_no_two_files_share_a_name() -> None:
    """File names are unique, so that a name finds its file."""
    names = collections.Counter(path.name for path in FILES if path.name != "base.py")
    assert [name for name, count in names.items() if count > 1] == []


ASSEMBLIES = {"Attention", "Decoder", "Encoder", "Stack"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_stays_small(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 300
    tree = ast.parse(source)
    # The parameters of assemblies are slots.
    assemblies = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in ASSEMBLIES]
    assembled = [function for each in assemblies for function in each.body if isinstance(function, ast.FunctionDef)]
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert is for tests; users cannot read it"
        if isinstance(node, ast.FunctionDef):
            arguments = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
            most = 24 if node in assembled else 16
            assert len(arguments) <= most, f"{node.name} has {len(arguments)} parameters"
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0
            assert length <= 40, f"{node.name} has {length} lines"


BELOW_TRAINING = [
    "lightning_xt.models.decoder",
    "lightning_xt.generation.engine",
    "lightning_xt.inference.text_generator",
    "lightning_xt.inference.text_completer",
    "lightning_xt.inference.translation",
    "lightning_xt.inference.conversation",
    "lightning_xt.inference.serving.serving_engine",
    "lightning_xt.checkpoints.checkpoint",
]
NEED_NO_LIGHTNING = """
import importlib, os, sys
import torch
assert "lightning" not in sys.modules
for module in sys.argv[1:]:
    # Each in a process that has imported torch and nothing else.
    child = os.fork()
    if not child:
        importlib.import_module(module)
        os._exit(any(name.split(".")[0] == "lightning" for name in sys.modules))
    print(module, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_every_name_is_bound() -> None:
    """Ruff and mypy do not look for undefined names, because shapes in annotations are texts of letters."""
    unbound = [f"{path.name}: {name}" for path in FILES for name in sorted(_list_unbound(path))]
    assert unbound == []


def _list_unbound(path: Path) -> set[str]:
    """Return the names that a module reads and binds nowhere."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    bound = {*dir(builtins), "__file__", "__name__"}
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name
        ):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} - bound


def test_rooms_below_training_need_no_lightning() -> None:
    script = [sys.executable, "-W", "ignore", "-c", NEED_NO_LIGHTNING, *BELOW_TRAINING]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{module} 0" for module in BELOW_TRAINING], done.stderr


def test_the_package_under_test_is_that_of_this_checkout(tmp_path: Path) -> None:
    assert Path(inspect.getfile(lightning_xt)).parent == ROOT
    show = "import lightning_xt; print(lightning_xt.__file__)"
    done = subprocess.run([sys.executable, "-c", show], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == ROOT


def test_shapes_are_checked_in_every_test_of_tensors_and_in_the_first_case_of_others() -> None:
    names = ["generation/test_engine.py::test_a[1]", "generation/test_engine.py::test_a[2]"]
    names += ["generation/test_engine.py::test_b", "nn/test_norms.py::test_a[2]", "nn/test_norms.py::test_a[3]"]
    names += ["test_cli.py::test_a"]
    items = []
    for name in names:
        file, _, test = name.partition("::")
        items.append(
            SimpleNamespace(nodeid=name, path=shape_checks.HERE / file, name=test, originalname=test.partition("[")[0])
        )
    assert shape_checks.choose(items) == {names[number] for number in (0, 2, 3, 4)}
    assert shape_checks.choose(items, everywhere=True) == set(names)
