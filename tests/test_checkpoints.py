"""Compositions come back from checkpoints; choice of a command's checkpoint, and its message."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from catalogue import PLACED, RECIPES
from lightning.pytorch import Trainer
from sampled_laws import sample
from tiny_run import read_rows

from lightning_xt.cli import main
from lightning_xt.commands.trainer.run_choice import Resolved, resolve
from lightning_xt.system.messages import UserError
from lightning_xt.training.callbacks.last_checkpoint import LastCheckpoint
from lightning_xt.training.from_config import build_tokenizer
from lightning_xt.training.language_model import LanguageModel


def describe(recipe: Any) -> Any:
    """Return a recipe of the catalogue as YAML spells it."""
    if isinstance(recipe, partial):
        options = {name: describe(value) for name, value in recipe.keywords.items()}
        return {"class_path": recipe.func.__name__, "init_args": options}
    if isinstance(recipe, type):
        return {"class_path": recipe.__name__}
    return [describe(each) for each in recipe] if isinstance(recipe, list | tuple) else recipe


@sample("name", {name: name for name in PLACED if name in RECIPES})
def test_a_checkpoint_rebuilds_the_composition(name: str, tmp_path: Path) -> None:
    options = {slot: describe(recipe) for slot, recipe in RECIPES[name].items()}
    model = LanguageModel.from_config({"decoder": {"dim": 24, "depth": 2, **options}})
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    torch.load(tmp_path / "model.ckpt", weights_only=True)
    again = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert str(again.decoder) == str(model.decoder)
    mine, theirs = model.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def choose(asked: str, command: str = "fit", **given: Any) -> Resolved:
    """Resolve a command's checkpoint in the current folder, whose run is runs/tiny/0."""
    options = {"ckpt_path": asked, "init_from": None, "name": None, "trainer": None, **given}
    trainer = SimpleNamespace(default_root_dir="runs", max_steps=99)
    return resolve(command, SimpleNamespace(**options | {"trainer": trainer}), {Path("tiny.yaml"): {}}, None)


@pytest.mark.parametrize("asked", ["last", "best", "runs/tiny/0/checkpoints/best.ckpt"])
def test_the_checkpoint_and_step_of_a_resumed_run_are_reported(asked: str, trained: Path) -> None:
    file = Path("runs/tiny/0/checkpoints/last.ckpt" if asked == "last" else "runs/tiny/0/checkpoints/best.ckpt")
    found = choose(asked)
    assert found.checkpoint is not None and found.checkpoint.path == file
    assert found.notes == (f"resuming from {file} at step 6",)
    # Commands that evaluate a checkpoint print nothing before the metrics.
    assert choose(asked, "validate").notes == ()


def test_the_command_prints_it(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "7"]) == 0
    line = "resuming from runs/tiny/0/checkpoints/last.ckpt at step 6"
    assert capsys.readouterr().out.splitlines()[0] == line


FOLDER = Path("runs/tiny/0/checkpoints")


@pytest.fixture
def kept(trained: Path) -> Path:
    """Return a run with checkpoints of the steps 2 and 4 too, and one after step 5 that is cut off."""
    content = torch.load(FOLDER / "best.ckpt", weights_only=True)
    for step in (2, 4, 5):
        torch.save({**content, "global_step": step}, FOLDER / f"step-{step}.ckpt")
    (FOLDER / "best.ckpt").rename(FOLDER / "other.pt")
    (FOLDER / "step-5.ckpt").write_bytes((FOLDER / "step-5.ckpt").read_bytes()[:5000])
    return trained


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (b"", "it is empty, because its writer was stopped; give another checkpoint"),
        (b"text", "it is not in the format of torch.save; give a .ckpt file of a run"),
    ],
    ids=["empty", "text"],
)
def test_the_newest_whole_one_is_named_where_the_last_is_damaged(damaged: bytes, said: str, kept: Path) -> None:
    last = FOLDER / "last.ckpt"
    last.write_bytes(damaged)
    with pytest.raises(UserError) as raised:
        choose("last")
    assert str(raised.value) == (
        f"--ckpt_path last: {last} cannot be read as a checkpoint: {said}; the newest whole one of the run is at step "
        f"4: --ckpt_path {FOLDER / 'step-4.ckpt'}"
    )


def test_no_checkpoint_is_named_if_all_are_damaged(trained: Path) -> None:
    for kind in ("best", "last"):
        (FOLDER / f"{kind}.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"it is empty, .*; give another checkpoint$"):
        choose("last")


def test_a_path_that_is_not_a_run_names_no_checkpoint(trained: Path) -> None:
    Path("bad.ckpt").write_bytes(b"")
    shutil.copy(FOLDER / "best.ckpt", "good.ckpt")
    with pytest.raises(UserError, match=r"bad\.ckpt cannot be read .* give another checkpoint$"):
        choose("bad.ckpt")


def test_a_checkpoint_of_something_else_names_those_of_the_run(kept: Path) -> None:
    torch.save({"weights": torch.ones(2)}, FOLDER / "last.ckpt")
    with pytest.raises(
        UserError, match=r"is not a checkpoint of a run: it has no state_dict; .* is at step 4: --ckpt_path"
    ):
        choose("last")


def test_files_of_a_killed_process_are_reported(trained: Path) -> None:
    (FOLDER / ".last.ckpt.part").write_bytes(b"half")
    told = choose("last").notes[1]
    assert told == f"{FOLDER}/.last.ckpt.part is what a process left that was stopped while it saved; it is not used"


def find_opened(monkeypatch: pytest.MonkeyPatch, *command: str) -> list[str]:
    """Return the checkpoints that a command opens, once for each time."""
    files: list[str] = []
    load = torch.load

    def counting(file: Any, *args: Any, **options: Any) -> Any:
        files.append(Path(file).name)
        return load(file, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", counting)
        assert main(command) == 0
    return files


def test_commands_open_their_checkpoint_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_opened(monkeypatch, "generate", "runs/tiny", "--prompt", "a", "--max_new_tokens", "2") == ["best.ckpt"]
    assert find_opened(monkeypatch, "info", "runs/tiny", "--tree") == ["best.ckpt"]
    config = ("-c", "runs/tiny/0/config.yaml")
    assert find_opened(monkeypatch, "validate", *config, "--ckpt_path", "best") == ["best.ckpt"]
    more = ("--trainer.max_steps", "7")
    # The best one is another file: its step is read when the run resumes, and it is measured at the end.
    assert find_opened(monkeypatch, "fit", *config, "--ckpt_path", "last", *more) == [
        "last.ckpt", "best.ckpt", "best.ckpt"
    ]  # fmt: skip
    assert (
        find_opened(monkeypatch, "fit", "-c", "tiny.yaml", "--init_from", "runs/tiny/0", "--name", "new")[0]
        == "best.ckpt"
    )


def test_a_model_whose_class_is_gone(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(FOLDER / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["_class_path"] = "my_models.Mine"
    torch.save(content, FOLDER / "best.ckpt")
    for command in (["generate", "runs/tiny", "--prompt", "a"], ["info", "runs/tiny", "--tree"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "the checkpoint's model my_models.Mine cannot be imported (No module named 'my_models')" in said
        assert f"it was looked for in {Path.cwd()} and the installed packages" in said


def test_nothing_is_saved_in_the_midst_of_a_step(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is saved within a step, because a resumed run would start from half a gradient."""
    assert main(["fit", "-c", "tiny.yaml", "--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "4"]) == 0
    saved = []
    write = LastCheckpoint._save_checkpoint

    def save(self: LastCheckpoint, trainer: Trainer, path: str) -> None:
        saved.append((trainer.global_step, trainer.fit_loop.epoch_loop.total_batch_idx + 1))
        write(self, trainer, path)

    monkeypatch.setattr(LastCheckpoint, "_save_checkpoint", save)
    # The checkpoint is due at the first batch of a step.
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]) == 0
    assert saved == [(8, 16)]


def test_a_run_that_makes_no_steps_stops_with_a_sentence(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose steps are all skipped stops with a sentence; the learning rate is far too high."""
    options = ["--trainer.max_steps", "40", "--model.optimizer.lr", "1e30", "--model.schedule", "null"]
    options += ["--trainer.gradient_clip_val", "null", "--validate_every", "50", "--non_finite.limit", "3"]
    assert main(["fit", "-c", "tiny.yaml", *options]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("lightning-xt: error: the loss or its gradient was not finite in 3 optimizer steps")
    assert "runs/tiny/0/non_finite.json lists their batches" in said
    assert [row["optim/skipped_steps"] for row in read_rows() if row["optim/skipped_steps"]][-1] == "2.0"
    assert len(json.loads(Path("runs/tiny/0/non_finite.json").read_text())["steps"]) == 3


@pytest.mark.parametrize(
    "path", ["torch.utils.collect_env.run", "torch.nn.Linear", "lightning_xt.system.messages.explain_unknown"]
)
def test_a_checkpoint_calls_nothing_but_tokenizers(path):
    with pytest.raises(ValueError, match=rf"the checkpoint's tokenizer.*{re.escape(path)} is not a"):
        build_tokenizer({"class_path": path, "init_args": {"command": "exit 1"}})
