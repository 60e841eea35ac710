"""lr: the range test of the learning rate."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_run
import torch

from lightning_xt.cli import main
from lightning_xt.commands.trainer import rate_search
from lightning_xt.training.callbacks.range_test import RangeTest
from lightning_xt.training.rate_range import find_rate, has_diverged, space_rates

TINY = ["-c", "tiny.yaml", "--model.decoder.dim=32", "--data.batch_size=8"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_run.write_inputs(tmp_path)
    return tmp_path


@pytest.mark.parametrize("curvature", [0.1, 3.0, 100.0])
def test_a_quadratic_gets_a_rate_below_its_limit(curvature):
    # Gradient descent on curvature / 2 * x**2 diverges from 2 / curvature on.
    rates, losses, x = space_rates(1e-5 / curvature, 1e3 / curvature, 100), [], 1.0
    for rate in rates:
        losses.append(curvature / 2 * x * x)
        if has_diverged(losses):
            break
        x -= rate * curvature * x
    assert len(losses) < 100
    found = find_rate(rates[: len(losses)], losses, 100)
    assert 0.01 < found.suggestion * curvature < 2
    assert found.suggestion == min(found.steepest, found.minimum / 10)
    assert found.smoothed[0] == losses[0]


def test_the_losses_decide():
    rates = space_rates(1e-3, 1.0, 31)
    assert rates[0] == 1e-3 and math.isclose(rates[-1], 1.0) and math.isclose(rates[10], 1e-2)
    losses = [3.0] * 10 + [3.0 - 0.1 * step for step in range(11)] + [2.0] * 10
    found = find_rate(rates, losses, 20)
    assert 1e-2 < found.steepest < 1e-1 <= found.minimum
    with pytest.raises(ValueError, match=r"did not fall between the learning rates 0\.001 and 1; choose others"):
        find_rate(rates, [3.0] * 31, 20)
    with pytest.raises(
        ValueError, match=r"diverged after 4 steps, at the learning rate 0\.002, .* begin lower: --lowest"
    ):
        find_rate(rates[:5], [3.0, 3.0, 3.0, 3.0, math.nan], 20)


def test_a_loss_diverges_at_nan_or_far_above():
    assert has_diverged([3.0, math.nan])
    assert not has_diverged([3.0] * 29 + [6.0])
    assert not has_diverged([3.0] * 30)
    assert has_diverged([3.0] * 30 + [9.0] * 5)
    assert has_diverged([3.0] * 20 + [0.5] * 5 + [2.0] * 5)


def test_the_command_suggests_and_leaves_only_the_plot(folder, capsys):
    command = ["lr", *TINY, "--steps=40", "--lowest=1e-5"]
    # What has its place in a run of the config's length is not part of the test.
    Path("long.yaml").write_text(
        "trainer: {callbacks: [{class_path: TailAverage, init_args: {length: 500}}, "
        "{class_path: DropoutSchedule, init_args: {begin: 1000}}]}\n"
    )
    assert main([*command, "--json", "-c", "long.yaml"]) == 0
    Path("long.yaml").unlink()
    first = json.loads(capsys.readouterr().out)
    assert 1e-4 < first["suggestion"] < 0.1
    assert first["plot"] is None and len(first["rates"]) == len(first["losses"]) <= 40
    assert first["losses"][0] > 5 > min(first["losses"])
    assert main([*command, "--plot=lr.png"]) == 0
    *table, falls, advice, plot, last = capsys.readouterr().out.splitlines()
    # The same seed gives the same rate.
    assert math.isclose(float(last.removeprefix("lr=")), first["suggestion"], rel_tol=1e-5)
    assert plot == "plot=lr.png"
    assert falls.startswith("the loss falls fastest at lr ")
    assert f"--model.optimizer.lr {first['suggestion']:.1e}," in advice
    assert "run:    not saved" in table and table[-13].split() == ["lr", "loss"]
    assert {path.name for path in folder.iterdir()} == {"corpus.txt", "prompts.txt", "tiny.yaml", "lr.png"}
    assert Path("lr.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "lr needs a config, such as -c language/quickstart.yaml"),
        ([*TINY, "--lowest=1"], "lr: --lowest 1 and --highest 1 must be above 0, and the second the larger"),
        ([*TINY, "--lowest=0"], "--lowest 0 and --highest 1 must be above 0"),
        ([*TINY, "--steps=19"], "--steps is 19; it must be at least 20 optimizer steps"),
        ([*TINY, "--plot=lr.txt"], "lr: --plot lr.txt is not a plot's name; end it with .png, .svg or .pdf"),
        ([*TINY, "--plot=no/lr.png"], "lr: --plot no/lr.png cannot be written (No such file or directory)"),
        ([*TINY, "--plot=folder.png"], "lr: --plot folder.png cannot be written (Is a directory); name another file"),
        (["runs/tiny"], "lr runs/tiny: a config is given with -c, and the weights of a run with --init_from RUN"),
        ([*TINY, "--resume"], "lr --resume: omit it; lr trains new weights"),
        ([*TINY, "--ckpt_path", "last"], "lr --ckpt_path: omit it; lr trains new weights"),
        ([*TINY, "--trainer.max_steps=9"], "lr --trainer.max_steps: omit it; set --steps"),
        ([*TINY, "--data.path=none.txt"], "none.txt"),
        ([*TINY, "--lowest=1e-12", "--highest=1e-11", "--steps=20"], "choose others by --lowest and --highest"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(options, sentence, folder, capsys):
    Path("folder.png").mkdir()
    assert main(["lr", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize("shown", [[], ["--json"]])
def test_a_plot_that_becomes_unwritable_leaves_the_result(shown, folder, capsys, monkeypatch):
    Path("plots").mkdir()
    losses = [3.0] * 10 + [3.0 - 0.1 * step for step in range(11)]

    def train(command, args):
        Path("plots").rmdir()
        test = RangeTest()
        test.rates, test.losses = space_rates(1e-3, 1.0, 21), losses
        return SimpleNamespace(trainer=SimpleNamespace(callbacks=[test], is_global_zero=True))

    monkeypatch.setattr(rate_search, "train", train)
    assert main(["lr", *TINY, "--plot=plots/lr.png", "--steps=21", *shown]) == 2
    captured = capsys.readouterr()
    assert "lr: --plot plots/lr.png cannot be written (No such file or directory);" in captured.err
    assert '"suggestion": ' in captured.out if shown else "try --model.optimizer.lr" in captured.out


def make_trainer(*groups):
    parameters = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in groups]
    return SimpleNamespace(optimizers=[torch.optim.SGD(parameters, lr=0.02)])


def test_all_groups_are_scaled_alike():
    test, trainer = RangeTest(lowest=1e-4, highest=1.0, steps=21), make_trainer(0.02, 0.003)
    test.on_train_start(trainer, None)
    test.losses = [3.0] * 10
    test.on_train_batch_start(trainer)
    assert [round(group["lr"], 9) for group in trainer.optimizers[0].param_groups] == [0.01, 0.0015]


def test_a_range_needs_one_optimizer_with_a_rate():
    with pytest.raises(ValueError, match="a model with one optimizer; this one has 2"):
        RangeTest().on_train_start(SimpleNamespace(optimizers=[1, 2]), None)
    trainer = make_trainer(0.0)
    trainer.optimizers[0].defaults["lr"] = 0.0
    with pytest.raises(ValueError, match="its lr must be above 0"):
        RangeTest().on_train_start(trainer, None)
