import logging

import pytest
import torch
from averaged_runs import Failing, Saving, SavingWhenItFails, Stopping, Watch, build, fit, flat
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from processes_fits import SavesHalfway, assert_close
from processes_fits import fit as fit_in_processes
from tiny_run import load_weights

from lightning_xt.cli import main
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.callbacks.tail_average import TailAverage

EXACT = {"precision": "64-true"}


def mean(steps, *numbers):
    """Compute the mean of the weights after steps counted from 1, by hand."""
    return torch.stack([steps[number - 1] for number in numbers]).mean(0)


def check_equal(found, expected):
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("length", "every", "samples"),
    [
        (0.5, 1, (4, 5, 6)),
        (4, 1, (3, 4, 5, 6)),
        (0.8, 2, (2, 4, 6)),
        (5, 3, (3, 6)),
        (1.0, 1, (1, 2, 3, 4, 5, 6)),
        (1, 1, (6,)),
        (0.01, 1, (6,)),
    ],
)
def test_the_mean_by_hand(folder, length, every, samples):
    plain, watch, model = Watch(), Watch(), build()
    fit(build(), plain, **EXACT)
    fit(model, TailAverage(length, every), watch, **EXACT)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(watch.steps, plain.steps, strict=True))
    check_equal(flat(model.state_dict()), mean(plain.steps, *samples))
    # The validation is after step 4.
    begun = [number for number in samples if number <= 4]
    for seen in watch.seen:
        check_equal(seen, mean(plain.steps, *(begun or (4,))))
    assert len(watch.seen) == 2


@pytest.mark.parametrize("steps", [-1, 100])
def test_steps_of_several_batches_and_of_epochs(steps, folder):
    watch, model = Watch(), build()
    epochs = {"max_epochs": 2, "limit_train_batches": 5, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}
    # Two steps of two batches and one of one batch an epoch.
    fit(model, TailAverage(0.5), watch, steps=steps, accumulate_grad_batches=2, **epochs, **EXACT)
    assert len(watch.steps) == 10
    check_equal(flat(model.state_dict()), mean(watch.steps, 7, 9, 10))


@pytest.mark.parametrize("before", [True, False])
def test_each_is_saved_in_its_place(folder, before):
    watch, average = Watch(), TailAverage(4)
    fit(build(head="TiedHead"), watch, *((Saving(), average) if before else (average, Saving())), **EXACT)
    for name, samples in (("validating", (3, 4)), ("validated", (3, 4)), ("ended", (3, 4, 5, 6))):
        checkpoint = torch.load(f"{name}.ckpt", weights_only=True)
        check_equal(flat(checkpoint["state_dict"]), mean(watch.steps, *samples))
        assert torch.equal(flat(checkpoint["current_model_state"]), watch.steps[samples[-1] - 1])


def test_a_validation_that_fails_saves_nothing_swapped(folder):
    watch, model = Watch(), build()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, watch, TailAverage(4), SavingWhenItFails(), Failing(), **EXACT)
    checkpoint = torch.load("failed.ckpt", weights_only=True)
    check_equal(flat(checkpoint["state_dict"]), mean(watch.steps, 3, 4))
    assert torch.equal(flat(checkpoint["current_model_state"]), watch.steps[-1])
    assert torch.equal(flat(model.state_dict()), watch.steps[-1])


@pytest.mark.parametrize(
    ("optimizer", "length", "every"), [("AdamW", 4, 1), ("AdamW", 2, 1), ("AdamW", 4, 3), ("MuonAdamW", 1.0, 1)]
)
def test_a_run_resumes_exactly(folder, optimizer, length, every):
    """The checkpoint is after step 4: in the tail, before it, between two samples, and of a run that is all tail."""
    whole, again = build(optimizer), build(optimizer)
    fit(whole, TailAverage(length, every), Saving())
    ended = torch.load("ended.ckpt", weights_only=True)
    assert ("current_model_state" in torch.load("training.ckpt", weights_only=True)) == (length != 2)
    fit(again, TailAverage(length, every), Saving(), ckpt_path="training.ckpt")
    resumed = torch.load("ended.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert torch.equal(flat(resumed[part]), flat(ended[part]))
    assert torch.equal(flat(whole.state_dict()), flat(again.state_dict()))
    assert not torch.equal(flat(ended["state_dict"]), flat(ended["current_model_state"]))


@pytest.mark.parametrize(
    ("average", "steps", "samples", "said"),
    [
        (TailAverage(0.67), 9, (5, 6, 7, 8, 9), True),
        (TailAverage(2), 9, (8, 9), True),
        (TailAverage(4, every=3), 6, (6,), True),
        (TailAverage(7), 9, (3, 4, 5, 6, 7, 8, 9), False),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_with_other_samples_begins_its_average_again(
    folder, caplog, average, steps, samples, said, accumulate
):
    options = {"accumulate_grad_batches": accumulate, "val_check_interval": 100, **EXACT}
    schedule = {"schedule": None}
    fit(build(**schedule), TailAverage(4), Saving(), **options)
    plain, again = Watch(), build(**schedule)
    fit(build(**schedule), plain, steps=steps, **options)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit(again, average, steps=steps, ckpt_path="training.ckpt", **options)
    check_equal(flat(again.state_dict()), mean(plain.steps[accumulate - 1 :: accumulate], *samples))
    after = max(4, samples[0] - 1 if average.every == 1 else 4)
    sentence = f"average is of other steps than this run averages, so it begins again after step {after}"
    assert sum(sentence in each for each in caplog.messages) == said


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
def test_one_average_resumes_the_run_of_another(folder, caplog):
    plain = Watch()
    fit(build(), plain, **EXACT)
    fit(build(), ExponentialAverage(0.7), Saving(), **EXACT)
    model = build()
    fit(model, TailAverage(4), ckpt_path="training.ckpt", **EXACT)
    check_equal(flat(model.state_dict()), mean(plain.steps, 5, 6))
    fit(build(), TailAverage(4), Saving(), **EXACT)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit(model := build(), ckpt_path="training.ckpt", **EXACT)
    assert torch.equal(flat(model.state_dict()), plain.steps[-1])
    assert sum("to keep averaging, add the callback TailAverage." in each for each in caplog.messages) == 1


class Breaking(Callback):
    """Callback that makes the gradients of some steps, counted from 1, NaN."""

    def __init__(self, *steps):
        self.steps = steps

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step + 1 in self.steps:
            next(iter(pl_module.parameters())).grad[0, 0] = float("nan")


@pytest.mark.parametrize("optimizer", ["AdamW", "MuonAdamW"])
@pytest.mark.parametrize(("broken", "samples"), [((3, 5), (4, 6)), ((4,), (3, 5, 6))])
def test_a_skipped_step_is_not_averaged(folder, optimizer, broken, samples):
    watch, model = Watch(), build(optimizer)
    fit(model, TailAverage(4), Breaking(*broken), watch, **EXACT)
    for number in broken:
        assert torch.equal(watch.steps[number - 1], watch.steps[number - 2])
    check_equal(flat(model.state_dict()), mean(watch.steps, *samples))


def test_a_run_that_ends_before_its_tail_is_reported(folder, caplog):
    watch, model = Watch(), build()
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit(model, TailAverage(2), watch, Saving(), Stopping())
    assert torch.equal(flat(model.state_dict()), watch.steps[-1])
    assert "current_model_state" not in torch.load("ended.ckpt", weights_only=True)
    sentence = "has averaged nothing up to step 4, so the checkpoints hold the weights themselves; it begins at step 5"
    assert sum(sentence in each for each in caplog.messages) == 1


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"length": 1.5}, "length 1.5, which must be as a fraction of the run from 0.0 to 1.0; give a whole number"),
        ({"length": 7}, r"length 7, which must be from 0 to 6 optimizer steps; give a whole number"),
        ({"length": 0}, "length 0, which must be above 0"),
        ({"length": -0.1}, "length -0.1, which must be above 0"),
        ({"every": 0}, "every 0, which must be at least 1"),
    ],
)
def test_options_out_of_range(folder, options, rule):
    with pytest.raises(ValueError, match=rf"^trainer\.callbacks: TailAverage has {rule}"):
        fit(build(), TailAverage(**options))


def test_runs_that_cannot_be_averaged(folder):
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    trainer = Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False)
    with pytest.raises(ValueError, match="TailAverage needs all weights in each process, and ModelParallelStrategy sh"):
        TailAverage().setup(trainer, build(), "fit")
    with pytest.raises(ValueError, match="TailAverage needs weights in float32"):
        fit(build(), TailAverage(), precision="bf16-true")
    with pytest.raises(ValueError, match="ExponentialAverage and TailAverage each put their average in the place of"):
        fit(build(), ExponentialAverage(), TailAverage())
    endless = (
        r"max_steps is -1, but trainer\.callbacks: TailAverage needs the length of the run in optimizer steps; set"
    )
    with pytest.raises(ValueError, match=endless):
        fit(build(schedule=None), TailAverage(), steps=-1)
    with pytest.raises(RuntimeError, match="TailAverage has an average only in a fit"):
        _ = TailAverage().count


def test_a_tail_longer_than_the_run_by_the_command_line(trained, capsys):
    options = ["--trainer.callbacks+=TailAverage", "--trainer.callbacks.length=7", "--name=long"]
    assert main(["fit", "-c", "tiny.yaml", *options]) == 2
    error = capsys.readouterr().err
    assert "trainer.callbacks: TailAverage has length 7, which must be from 0 to 6 optimizer steps" in error
    with pytest.raises(FileNotFoundError):
        load_weights("runs/long/0")


@pytest.mark.slow
def test_through_the_command_line(trained, capsys):
    plain = load_weights()
    assert main(["fit", "-c", "tiny.yaml", "-c", "trainer/tail_average.yaml", "--keep_checkpoints=2"]) == 0
    measured = capsys.readouterr().out.splitlines()[-1]
    last = torch.load("runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    assert torch.equal(flat(last["current_model_state"]), flat(plain))
    assert main(["validate", "-c", "runs/tiny/1/config.yaml", "--ckpt_path", "last"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == measured


@pytest.mark.slow
def test_two_processes_average_as_one(folder):
    one = fit_in_processes(folder, "one", callbacks=[TailAverage(3)])
    file = folder / "halfway.ckpt"
    two = fit_in_processes(folder, "ddp", callbacks=[TailAverage(3), SavesHalfway(file)])
    assert_close(two.weights, one.weights)
    again = fit_in_processes(folder, "ddp", callbacks=[TailAverage(3)], resume=file)
    torch.testing.assert_close(again.weights, two.weights, rtol=0, atol=0)
