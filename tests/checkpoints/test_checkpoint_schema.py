"""Malformed contents of a checkpoint: row S15 of the list of reported cases."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.checkpoint_schema import find_misfit
from lightning_xt.checkpoints.migrations import METADATA_KEY
from lightning_xt.cli import main

LAST = "runs/tiny/0/checkpoints/last.ckpt"
COMMANDS = (
    ["info", "bad.ckpt"],
    ["info", "bad.ckpt", "--tree"],
    ["generate", "bad.ckpt", "--prompt", "a", "--max_new_tokens", "2"],
    ["validate", "-c", "tiny.yaml", "--ckpt_path", "bad.ckpt"],
    ["fit", "-c", "tiny.yaml", "--ckpt_path", "bad.ckpt", "--trainer.max_steps", "8"],
)
JUNK = (None, 7, -1, 1.5, "x", True, [], [1], {}, {"x": 1}, (), torch.zeros(2), float("nan"), 10**30)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [each for name, child in inner for each in places(child, (*path, name))]


def change(seed: int, contents: dict[str, Any]) -> str:
    """Replace, remove or rename a random value, in place; return what was done."""
    choice = random.Random(seed)
    # Weights are the most, and one of them stands for all.
    found = [path for path in places(contents) if path[0] not in ("state_dict",) or choice.random() < 0.05]
    top = choice.choice(sorted({path[0] for path in found}))
    *outer, name = choice.choice([path for path in found if path[0] == top])
    holder: Any = contents
    for each in outer:
        holder = holder[each]
    kind = choice.choice(("replace", "replace", "remove", "rename"))
    if kind == "replace" or isinstance(holder, list):
        holder[name] = choice.choice(JUNK)
    else:
        value = holder.pop(name)
        if kind == "rename":
            holder[choice.choice(("x", 3, None, f"{name}_"))] = value
    return f"{kind} {'.'.join(map(str, (*outer, name)))}"


def run_all(done: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        code = main(list(command))
        told = capsys.readouterr()
        assert code in (0, 2), (done, command)
        assert "Traceback" not in told.err, (done, command)
        if code == 2:
            errors = [line for line in told.err.splitlines() if line.startswith("lightning-xt: error: ")]
            assert len(errors) == 1, (done, command, told.err)


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed % 60 == 0 else pytest.mark.slow) for seed in range(240)]
)
def test_cases_s15_a_changed_checkpoint_works_or_is_refused_by_one_sentence(
    seed: int, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = torch.load(LAST, weights_only=True)
    done = change(seed, contents)
    torch.save(contents, "bad.ckpt")
    run_all(done, capsys)


def shared(contents: dict[str, Any]) -> None:
    value: dict[str, Any] = {"x": 1}
    for _ in range(9):
        value = {f"k{number}": value for number in range(9)}
    contents["hyper_parameters"]["decoder"] = value


def own_holder(contents: dict[str, Any]) -> None:
    contents["lightning_xt"]["tokenizers"]["text"]["init_args"]["separator"] = contents["lightning_xt"]["tokenizers"]


def deep(contents: dict[str, Any]) -> None:
    for _ in range(100):
        contents["hyper_parameters"] = {"x": contents["hyper_parameters"]}


def counter(contents: dict[str, Any]) -> None:
    contents["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] = "6"


def moment(contents: dict[str, Any]) -> None:
    contents["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(3)


def set_entry(*path: Any, value: Any) -> Any:
    def change(contents: dict[str, Any]) -> None:
        for name in path[:-1]:
            contents = contents[name]
        contents[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (shared, "it holds more than 2,000,000 values where shared ones are written out"),
        (own_holder, "one of its values holds itself"),
        (deep, "its lists and mappings are nested more than 64 deep"),
        (set_entry("hyper_parameters", value=1.0), "its hyper_parameters is 1.0, not a mapping of options"),
        (set_entry("callbacks", "NonFinite", value=7), "its callbacks.NonFinite is 7, not a mapping"),
        (set_entry("optimizer_states", value=None), "its optimizer_states is None, not a list"),
        (set_entry("lr_schedulers", value=[1]), "its lr_schedulers[0] is 1, not a mapping"),
        (set_entry("TextFiles", "samples_seen", value="12"), "its TextFiles.samples_seen is '12', not a whole number"),
        (set_entry("TextFiles", "order", value=3), "its TextFiles.order is 3, not a text"),
        (set_entry("lightning_xt", "trainer", value={}), "it has no lightning_xt.trainer.precision"),
    ],
)
def test_cases_s15_the_schema_is_checked_before_anything_is_used(change: Any, says: str, trained: Path) -> None:
    contents = torch.load(LAST, weights_only=True)
    change(contents)
    torch.save(contents, "bad.ckpt")
    with pytest.raises(ValueError, match=r"^bad\.ckpt cannot be read as a checkpoint: ") as error:
        Checkpoint("bad.ckpt")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (counter, "its loops cannot be restored (loops.fit_loop.epoch_loop.batch_progress.total.ready is '6', not a"),
        (moment, "its optimizers cannot be restored (exp_avg has shape (3,), its parameter ("),
        (set_entry("loops", "fit_loop", value={}), "its loops cannot be restored (loops.fit_loop has no state_dict)"),
        (set_entry("loops", value={}), "its loops cannot be restored (loops has no fit_loop)"),
        (lambda contents: contents.pop("optimizer_states"), "its optimizers_and_schedulers cannot be restored"),
    ],
)
def test_cases_s15_what_cannot_be_restored_is_one_sentence(
    change: Any, says: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = torch.load(LAST, weights_only=True)
    change(contents)
    torch.save(contents, "bad.ckpt")
    assert main(["fit", "-c", "tiny.yaml", "--ckpt_path", "bad.ckpt", "--trainer.max_steps", "8"]) == 2
    error = capsys.readouterr().err
    assert "bad.ckpt cannot be resumed from: " in error
    assert says in error
    assert "start a new run from its weights with --init_from bad.ckpt" in error


@pytest.mark.parametrize("kind", [torch.optim.Adafactor, torch.optim.AdamW, torch.optim.LBFGS, torch.optim.SGD])
def test_the_states_of_other_optimizers_fit(kind: type[torch.optim.Optimizer]) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer: Any = kind(model.parameters())

    def compute_loss() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(torch.ones(5, 3)).square().sum()
        loss.backward()
        return loss

    optimizer.step(compute_loss)
    contents = {METADATA_KEY: {"version": "0.1.0"}, "optimizer_states": [optimizer.state_dict()]}
    assert find_misfit(contents) is None
    contents["optimizer_states"][0]["param_groups"][0]["eps"] = "x"
    assert find_misfit(contents) == "its optimizer_states[0].param_groups[0].eps is 'x', not a number"


def test_a_run_with_adafactor_resumes(fresh: Path) -> None:
    options = ["--model.optimizer", "Adafactor", "--trainer.max_steps"]
    assert main(["fit", "-c", "tiny.yaml", *options, "3"]) == 0
    assert main(["fit", "runs/tiny", "--resume", *options, "5"]) == 0
