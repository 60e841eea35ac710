"""Reach of a stranger's config, flag or checkpoint: rows S1 to S5 of the list of reported cases."""

import copy
import importlib
import inspect
import random
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from tiny_run import TINY

from lightning_xt.cli import main
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.imports import find, guarded_imports
from lightning_xt.training.compilation import check_compile_options
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.saved_paths import localize_saved_paths

COMMAND = {
    "class_path": "lightning.pytorch.cli.instantiate_class",
    "init_args": {"args": "touch hacked", "init": {"class_path": "os.system"}},
}
PROCESS = {
    "class_path": "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
    "init_args": {"entrypoint": "touch", "args": ["hacked"], "env": {}, "stdout": None, "stderr": None,
                  "local_rank_id": 0},
}  # fmt: skip
NAMES = ("os.system", "torch.os.system", "torch.hub.load", "lightning.pytorch.cli.instantiate_class",
         "lightning_xt.cli.main", "torch._sources.inspect.os.system", "mine.os.system", "mine.load",
         "mine.torch.hub.load", "torch.Generator", PROCESS["class_path"])  # fmt: skip
VALUES: list[Any] = [COMMAND, PROCESS, *NAMES, *({"class_path": name} for name in NAMES),
                     {"class_path": "os.system", "init_args": {"command": "touch hacked"}},
                     {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "hacked"]}}]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a current folder with a module of the user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import os\nimport torch\nfrom torch.hub import load\n")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def find_slots() -> list[tuple[str, Any]]:
    """Return every type of an option that is not made of plain values, with one option of that type."""
    places = ["callbacks", "loggers", "strategies", "plugins", "profilers", "accelerators"]
    modules = [importlib.import_module(f"lightning.pytorch.{name}") for name in places]
    modules += [torch.optim, torch.optim.lr_scheduler, torch.utils.data, lightning.pytorch]
    modules += [module for name, module in sorted(sys.modules.items()) if name.startswith("lightning_xt.")]
    found: dict[str, tuple[str, Any]] = {}
    for module in modules:
        for kind in vars(module).values():
            if not inspect.isclass(kind) or kind.__module__.split(".")[0] not in ("lightning", "lightning_xt", "torch"):
                continue
            try:
                hints = typing.get_type_hints(kind.__init__)
            except (NameError, TypeError, AttributeError):
                continue
            for name, hint in hints.items():
                if any(word in repr(hint) for word in ("Callable", "Any", "object", "class '", ".")):
                    found.setdefault(repr(hint), (f"{kind.__name__}.{name}", hint))
    return [
        each for key, each in sorted(found.items()) if key not in {repr(plain) for plain in (int, str, float, bool)}
    ]


def make_parser(hint: Any) -> ArgumentParser:
    """Return a parser with one option of a type; the type may be of no option."""
    parser = ArgumentParser(exit_on_error=False)
    with suppress(ValueError):
        parser.add_argument("--slot", type=hint)
    return parser


def build(parser: ArgumentParser, value: Any) -> Any:
    """Return the option's object for a value; None if it refuses the value."""
    try:
        with guarded_imports():
            # A copy, because some types change the values that they are given in place.
            return parser.instantiate(parser.parse_object({"slot": copy.deepcopy(value)})).slot
    except Exception:
        return None


def is_plain(value: Any) -> bool:
    if isinstance(value, (dict, Namespace)):
        return all(map(is_plain, vars(value).values() if isinstance(value, Namespace) else value.values()))
    if isinstance(value, (list, tuple, set)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, bool, int, float, Path))


def test_cases_s1_every_slot(place: Path) -> None:
    found = find_slots()
    assert len(found) > 100
    for option, hint in found:
        parser = make_parser(hint)
        for value in VALUES:
            made = build(parser, value)
            assert is_plain(made), f"{option}: {value} makes {made!r}"
    assert not (place / "hacked").exists()
    assert not {"mine", "antigravity"} & {name for name in sys.modules if name == "antigravity"}


SPEC = yaml.safe_dump(COMMAND, default_flow_style=True).strip()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("schedule:", f"optimizer: {SPEC}\n    schedule:"),
        ("heads: 2", f"heads: 2, position: {SPEC}"),
        ("devices: 1", f"devices: 1, callbacks: [{SPEC}]"),
    ],
)
def test_cases_s1_configs(before: str, after: str, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("theirs.yaml").write_text(TINY.replace(before, after, 1))
    assert main(["fit", "-c", "theirs.yaml"]) == 2
    assert_one_sentence(capsys)


@pytest.mark.parametrize(
    "flag",
    [f"--model.schedule={COMMAND}", "--trainer.profiler=torch.hub.load", "--model.optimizer=torch.os.system"],
)
def test_cases_s1_flags(flag: str, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "tiny.yaml", flag]) == 2
    assert_one_sentence(capsys)


def test_cases_s1_checkpoints_and_python(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["optimizer"] = COMMAND
    torch.save(checkpoint, "theirs.ckpt")
    for command in (
        ["generate", "theirs.ckpt", "--prompt", "a"],
        ["generate", "runs/tiny", "--prompt", "a", "--draft", "theirs.ckpt"],
        ["generate", "runs/tiny", "--prompt", "a", f"--method={COMMAND}"],
        ["info", "theirs.ckpt", "--tree"],
    ):
        assert main(command) == 2
        assert_one_sentence(capsys)
    with pytest.raises(Exception, match="instantiate_class is not a class"):
        LanguageModel.load_from_checkpoint("theirs.ckpt", weights_only=True)
    # The private mark of a checkpoint is not an option of a config.
    with pytest.raises(ValueError, match="unknown option of LanguageModel '_class_path'"):
        LanguageModel.from_config(checkpoint["hyper_parameters"])
    with pytest.raises(ValueError, match="is not a class"):
        LanguageModel.from_config({"optimizer": "torch.hub.load"})
    Path("theirs.yaml").write_text(yaml.safe_dump({"model": {"optimizer": COMMAND}}))
    with pytest.raises(ValueError, match="instantiate_class is not a class"):
        LanguageModel.from_config("theirs.yaml")
    assert not Path("hacked").exists()


def assert_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    told = capsys.readouterr().err
    assert told.startswith("lightning-xt: error: ") and len(told.splitlines()) == 1, told
    assert not Path("hacked").exists()


def test_cases_s1_a_name_in_a_value_or_a_message_imports_nothing(place: Path, fresh: Path) -> None:
    Path("trap_in_text.py").write_text("from pathlib import Path\nPath('hacked').touch()\n")
    value = "Problem with given class_path 'trap_in_text.Trap': Option 'x' is not accepted"
    assert main(["fit", "-c", "tiny.yaml", "--model.decoder.dim", value]) == 2
    assert main(["fit", "-c", "tiny.yaml", "--model.compile", "{class_path: trap_in_text.Trap, init_args: {}}"]) == 2
    assert not Path("hacked").exists() and "trap_in_text" not in sys.modules


FAMILIES: list[tuple[Any, tuple[type, ...]]] = [
    (Callable[[int], Position], (Position,)),
    (Callable[[Iterable[Any]], torch.optim.Optimizer], (torch.optim.Optimizer,)),
    (Callback, (Callback,)), (Logger, (Logger,)), (Strategy, (Strategy,)), (Profiler, (Profiler,)),
    (LightningDataModule, (LightningDataModule,)), (Callable[..., Any], ()), (Callable, ()), (Any, ()), (object, ()),
    (type, ()), (torch.Generator, ()), (dict, ()),
]  # fmt: skip
PUBLIC = sorted(
    name
    for name in sys.modules
    if name.startswith(("torch.", "lightning.")) and not any(part.startswith("_") for part in name.split("."))
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_cases_s1_property_only_families_are_found(choice: random.Random) -> None:
    module = choice.choice(PUBLIC)
    names = [name for name in dir(sys.modules[module]) if name.isidentifier()]
    for name in choice.sample(names, min(len(names), 8)):
        for hint, families in FAMILIES:
            try:
                found = find(f"{module}.{name}", hint)
            except (ImportError, AttributeError):
                continue
            assert isinstance(found, type) and issubclass(found, families), f"{module}.{name} for {hint}"
        for hint in (Callable[[int], Position], Callable[..., Any], Any):
            parser = make_parser(hint)
            assert is_plain(build(parser, choice.choice([f"{module}.{name}", {"class_path": f"{module}.{name}"}])))


def test_cases_s2_untyped_options_take_plain_values(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strategy = {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"ddp_comm_state": PROCESS}}
    assert main(["fit", "-c", "tiny.yaml", f"--trainer.strategy={strategy}"]) == 2
    assert_one_sentence(capsys)
    for option in ("ddp_comm_state", "ddp_comm_hook", "process_group_backend", "ddp_comm_wrapper", "timeout"):
        for value in (PROCESS, COMMAND, "torch.hub.load"):
            made = build(make_parser(Strategy), {**strategy, "init_args": {option: value}})
            assert made is None or is_plain(vars(made)[f"_{option}"]), option
    made = build(make_parser(Strategy), {**strategy, "init_args": {"ddp_comm_state": {"rank": 4, "names": ["a"]}}})
    assert made._ddp_comm_state == {"rank": 4, "names": ["a"]}
    assert not Path("hacked").exists()


def test_cases_s2_no_class_of_the_users_either(place: Path) -> None:
    (place / "mine.py").write_text("class State: pass\n")
    assert (
        build(make_parser(Any), {"class_path": "mine.State"}) is None
        and build(make_parser(object), {"class_path": "mine.State"}) is None
    )
    assert type(build(make_parser(Callable[..., Any]), {"class_path": "mine.State"})).__name__ == "NoneType"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"options": {"cpp.march": "native -wrapper sh,-c,touch${IFS}hacked"}}, "options.cpp.march is not supported"),
        ({"options": {"cpp.threads": "1 -wrapper sh"}}, "options.cpp.threads is '1 -wrapper sh'; it must be"),
        ({"options": {"cpp.threads": [1]}}, r"options.cpp.threads is \[1\]; it must be"),
        ({"options": "march"}, "options is 'march'; give a mapping"),
        ({"backend": "mine.backend"}, "backend is 'mine.backend'; choose from inductor"),
        ({"mode": "foo"}, "mode is 'foo'; choose from null, default"),
        ({"speed": 1}, "speed is not supported; choose from mode, dynamic"),
        ({"fullgraph": 3}, "fullgraph is 3; choose from True, False"),
    ],
)
def test_cases_s3(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.compile\.{said}"):
        check_compile_options(options)
    with pytest.raises(ValueError, match=rf"model\.compile\.{said}"):
        LanguageModel.from_config({"decoder": {"dim": 8, "depth": 1, "attention": {"heads": 2}}, "compile": options})


def test_cases_s3_by_the_command_line(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "tiny.yaml", "--model.compile={options: {cpp.march: native -wrapper sh}}"]) == 2
    assert_one_sentence(capsys)
    check_compile_options({"mode": "default", "dynamic": False, "options": {"max_autotune": True, "cpp.threads": 2}})
    check_compile_options(True)


def loaded_by_python() -> set[str]:
    """Return the modules that Python itself imports before it runs a module of a package."""
    code = "import runpy, sys; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {*done.stdout.split()}


@pytest.mark.parametrize("command", ["module", "script"])
def test_cases_s4(command: str, trained: Path) -> None:
    names = {*sys.stdlib_module_names, "numpy", "torch", "yaml", "jsonargparse", "lightning", "torchmetrics", "wandb",
             "apex", "triton", "deepspeed", "transformer_engine", "tokenizers", "sitecustomize"}  # fmt: skip
    for name in names - loaded_by_python():
        Path(f"{name}.py").write_text("from pathlib import Path\nPath('hacked').touch()\n")
    script = "import sys; sys.path.pop(0); from lightning_xt.__main__ import main; main()"
    start = ["-m", "lightning_xt"] if command == "module" else ["-c", script]
    done = subprocess.run([sys.executable, *start, "info", "runs/tiny"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "LanguageModel" in done.stdout
    assert not Path("hacked").exists()


def test_cases_s4_the_folder_is_last_and_only_while_a_name_is_looked_up(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "einops.py").write_text("raise RuntimeError")
    (place / "own_place.py").write_text("import sys\nplaces = list(sys.path)\nclass Thing: pass\n")
    before = list(sys.path)
    assert find("own_place.Thing").__module__ == "own_place"
    assert sys.modules["own_place"].places == [*before, str(place)] and sys.path == before
    with pytest.raises(ImportError, match=r"einops\.Thing is not imported"):
        find("einops.Thing")
    monkeypatch.delitem(sys.modules, "own_place")


def test_cases_s5(trained: Path) -> None:
    """Resuming removes no file that a checkpoint names."""
    victim, neighbour = Path("victim.txt"), Path("runs/tiny/0/checkpoints/other.ckpt")
    for file in (victim, neighbour):
        file.write_text("dear")
    last = Path("runs/tiny/0/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    for name, state in checkpoint["callbacks"].items():
        if "Checkpoint" in name:
            climb = f"{state['dirpath']}/../../../../victim.txt"
            state.update(
                best_model_path=climb,
                last_model_path=climb,
                kth_best_model_path=climb,
                best_k_models={climb: torch.tensor(1.0)},
            )
        if name.startswith("LastCheckpoint"):
            state["best_model_path"] = str(neighbour)
    torch.save(checkpoint, last)
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]) == 0
    assert victim.read_text() == neighbour.read_text() == "dear"
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in last.parent.iterdir()}


@pytest.mark.parametrize(
    ("filename", "path", "kept"),
    [
        ("best", "elsewhere/best.ckpt", True),
        ("best", "{folder}/best.ckpt", True),
        ("best", "{folder}/best-v1.ckpt", True),
        ("best", "{folder}/../best.ckpt", True),
        ("best", "{folder}/last.ckpt", False),
        ("best", "{folder}/notes.txt", False),
        ("best", "..", False),
        ("best", "{folder}/gone.ckpt", False),
        (None, "{folder}/epoch=0-step=3.ckpt", True),
        (None, "{folder}/last.ckpt", False),
    ],
)
def test_cases_s5_paths_are_names_in_the_own_folder(
    filename: str | None, path: str, kept: bool, tmp_path: Path
) -> None:
    for name in ("best.ckpt", "best-v1.ckpt", "last.ckpt", "notes.txt", "epoch=0-step=3.ckpt"):
        (tmp_path / name).touch()
    callback = ModelCheckpoint(tmp_path, filename=filename, monitor="loss", save_top_k=2)
    trainer = Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
    saved, score = path.format(folder=tmp_path), torch.tensor(1.0)
    state = {**callback.state_dict(), "dirpath": "elsewhere", "best_model_path": saved, "best_model_score": score,
             "best_k_models": {saved: score}, "kth_best_model_path": saved}  # fmt: skip
    checkpoint = {"callbacks": {callback.state_key: state}}
    localize_saved_paths(trainer, checkpoint)
    callback.load_state_dict(checkpoint["callbacks"][callback.state_key])
    own = str(tmp_path / Path(saved).name) if kept else ""
    assert callback.best_model_path == callback.kth_best_model_path == own
    assert callback.best_k_models == ({own: score} if kept else {})
    assert callback.best_model_score == (score if kept else None)
