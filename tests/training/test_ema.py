import copy
import logging

import pytest
import torch
from averaged_runs import Failing, Saving, SavingWhenItFails, Stopping, Watch, build, fit, flat
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from tiny_run import load_weights

from lightning_xt.cli import main
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.language_model import LanguageModel

EMA = ["--trainer.callbacks+=ExponentialAverage", "--trainer.callbacks.decay=0.7"]


def averages(steps, decay, start=0):
    """Compute the average after each step, by hand."""
    found = [step.clone() for step in steps[: start + 1]]
    for step in steps[start + 1 :]:
        found.append(found[-1] * decay + step * (1 - decay))
    return found


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("before", [True, False])
def test_what_validations_see_by_hand(folder, start, before):
    plain, watch = Watch(), Watch()
    fit(build(), plain)
    average = ExponentialAverage(0.7, start)
    model = build()
    fit(model, *((watch, average) if before else (average, watch)))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(watch.steps, plain.steps, strict=True))
    expected = averages(plain.steps, 0.7, start)
    for seen in watch.seen:
        torch.testing.assert_close(seen, expected[3])
    assert len(watch.seen) == 2
    torch.testing.assert_close(flat(model.state_dict()), expected[5])


def test_a_step_of_several_batches_counts_once(folder):
    watch, model = Watch(), build()
    fit(model, ExponentialAverage(0.7), watch, steps=3, accumulate_grad_batches=2, val_check_interval=100)
    torch.testing.assert_close(flat(model.state_dict()), averages(watch.steps[1::2], 0.7)[-1])


def test_before_it_begins_the_weights_are_seen(folder):
    watch, model = Watch(), build()
    trainer = fit(model, watch, ExponentialAverage(0.7, 99), Saving())
    assert torch.equal(watch.seen[0], watch.steps[3])
    assert torch.equal(flat(model.state_dict()), watch.steps[-1])
    assert "current_model_state" not in torch.load("validating.ckpt", weights_only=True)
    assert trainer.global_step == 6


@pytest.mark.parametrize("head", ["UntiedHead", "TiedHead"])
@pytest.mark.parametrize("before", [True, False])
def test_each_is_saved_in_its_place(folder, head, before):
    watch, average = Watch(), ExponentialAverage(0.7)
    fit(build(head=head), watch, *((Saving(), average) if before else (average, Saving())))
    expected = averages(watch.steps, 0.7)
    for name, step in (("validating", 3), ("validated", 3), ("ended", 5)):
        checkpoint = torch.load(f"{name}.ckpt", weights_only=True)
        torch.testing.assert_close(flat(checkpoint["state_dict"]), expected[step])
        assert torch.equal(flat(checkpoint["current_model_state"]), watch.steps[step])
        loaded = LanguageModel.load_from_checkpoint(f"{name}.ckpt", weights_only=True)
        torch.testing.assert_close(flat(loaded.state_dict()), expected[step])


@pytest.mark.parametrize("before", [True, False])
def test_a_validation_that_fails_saves_nothing_swapped(folder, before):
    watch, average, model = Watch(), ExponentialAverage(0.7), build()
    order = (SavingWhenItFails(), average) if before else (average, SavingWhenItFails())
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, watch, *order, Failing())
    checkpoint = torch.load("failed.ckpt", weights_only=True)
    torch.testing.assert_close(flat(checkpoint["state_dict"]), averages(watch.steps, 0.7)[-1])
    assert torch.equal(flat(checkpoint["current_model_state"]), watch.steps[-1])
    assert torch.equal(flat(model.state_dict()), watch.steps[-1])


def test_a_second_fit_begins_again(folder):
    average, model, watch = ExponentialAverage(0.7), build(), Watch()
    fit(model, average)
    fit(model, average, watch, steps=3, val_check_interval=100)
    torch.testing.assert_close(flat(model.state_dict()), averages(watch.steps, 0.7)[-1])


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
# Lightning warns of any module that can shard its weights, used or not.
@pytest.mark.filterwarnings("ignore:.*WeightAveraging doesn't support sharding model layers")
def test_a_checkpoint_of_lightnings_average_resumes(folder):
    fit(build(), EMAWeightAveraging(decay=0.7, use_buffers=False), Saving(), Stopping())
    watch, model = Watch(), build()
    fit(model, ExponentialAverage(0.7), watch, ckpt_path="training.ckpt")
    start = flat(torch.load("training.ckpt", weights_only=True)["state_dict"])
    expected = averages([start, *watch.steps], 0.7)[-1]
    torch.testing.assert_close(flat(model.state_dict()), expected)


@pytest.mark.parametrize("optimizer", ["AdamW", "MuonAdamW", "SOAPAdamW"])
def test_a_run_resumes_exactly(folder, optimizer):
    whole, again, plain = (build(optimizer=optimizer) for _ in range(3))
    fit(whole, ExponentialAverage(0.7), Saving())
    ended = torch.load("ended.ckpt", weights_only=True)
    fit(again, ExponentialAverage(0.7), Saving(), ckpt_path="training.ckpt")
    resumed = torch.load("ended.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert torch.equal(flat(resumed[part]), flat(ended[part]))
    assert torch.equal(flat(whole.state_dict()), flat(again.state_dict()))
    fit(plain)
    assert torch.equal(flat(plain.state_dict()), flat(ended["current_model_state"]))
    assert not torch.equal(flat(plain.state_dict()), flat(whole.state_dict()))


def test_cases_s18_64_bit_weights_resume_exactly(folder):
    whole, again = build(), build()
    fit(whole, Saving(), precision="64-true")
    fit(again, Saving(), ckpt_path="training.ckpt", precision="64-true")
    assert torch.equal(flat(whole.state_dict()), flat(again.state_dict()))


def test_cases_s18_an_average_of_64_bit_weights_has_64_bits(folder):
    whole, again, watch = build(), build(), Watch()
    fit(whole, ExponentialAverage(0.7), Saving(), watch, precision="64-true")
    torch.testing.assert_close(flat(whole.state_dict()), averages(watch.steps, 0.7)[-1], rtol=1e-14, atol=1e-14)
    fit(again, ExponentialAverage(0.7), Saving(), ckpt_path="training.ckpt", precision="64-true")
    assert torch.equal(flat(whole.state_dict()), flat(again.state_dict()))


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
def test_resuming_without_the_average(folder, caplog):
    fit(build(), ExponentialAverage(0.7), Saving())
    whole, again = build(), build()
    fit(whole)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit(again, ckpt_path="training.ckpt")
    assert torch.equal(flat(whole.state_dict()), flat(again.state_dict()))
    told = [each for each in caplog.messages if "averaged its weights, this one does not: it resumes from" in each]
    assert len(told) == 1


@pytest.mark.slow
def test_through_the_command_line(trained, capsys):
    plain = load_weights()
    assert main(["fit", "-c", "tiny.yaml", *EMA, "--keep_checkpoints=2"]) == 0
    measured = capsys.readouterr().out.splitlines()[-1]
    run = "runs/tiny/1"
    best, last = (torch.load(f"{run}/checkpoints/{kind}.ckpt", weights_only=True) for kind in ("best", "last"))
    assert torch.equal(flat(last["current_model_state"]), flat(plain))
    assert torch.equal(flat(best["state_dict"]), flat(last["state_dict"]))
    assert not torch.equal(flat(last["state_dict"]), flat(plain))
    # With the callback of the run's config, and without it.
    for options in ([], ["--trainer.callbacks=null"]):
        assert main(["validate", "-c", f"{run}/config.yaml", "--ckpt_path", "best", *options]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == measured
    step = f"{run}/checkpoints/step-4.ckpt"
    assert main(["fit", "-c", f"{run}/config.yaml", "--ckpt_path", step, "--trainer.callbacks=null"]) == 0
    assert torch.equal(flat(load_weights(run)), flat(plain))


def test_weights_are_taken_as_they_are_where_nothing_was_averaged(folder, caplog):
    fit(build(), Saving(), Stopping())
    whole, again = build(), build()
    fit(whole)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit(again, ckpt_path="training.ckpt")
    assert torch.equal(flat(whole.state_dict()), flat(again.state_dict()))
    assert "averaged its weights" not in caplog.text


def test_weights_that_cannot_be_averaged(folder):
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    trainer = Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False)
    with pytest.raises(ValueError, match="needs all weights in each process, and ModelParallelStrategy shards them"):
        ExponentialAverage().setup(trainer, build(), "fit")
    with pytest.raises(ValueError, match=r"needs weights in float32, .* but trainer\.precision is bf16-true; use"):
        fit(build(), ExponentialAverage(), precision="bf16-true")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"decay": 1.0}, "decay 1.0, which must be at least 0 and below 1"),
        ({"start_step": -1}, "start_step -1, which must be at least 0"),
    ],
)
def test_options_out_of_range(options, rule):
    with pytest.raises(ValueError, match=rf"trainer\.callbacks: ExponentialAverage has {rule}"):
        ExponentialAverage(**options)


def test_a_copy_of_the_module_is_not_the_trainers(trained, monkeypatch):
    seen = []
    monkeypatch.setattr(ExponentialAverage, "on_train_start", lambda self, trainer, module: seen.append((self, module)))
    assert main(["fit", "-c", "tiny.yaml", *EMA]) == 0
    module = seen[0][1]
    copied = copy.deepcopy(module)
    assert copied.optimizer_factory is module.optimizer_factory
    assert copied.schedule_factory is module.schedule_factory
    assert copied._trainer is None
    assert copied.state_dict().keys() == module.state_dict().keys()
    assert all(
        mine.data_ptr() != own.data_ptr() for mine, own in zip(copied.parameters(), module.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("decay", "start", "said"), [(0.999, 0, True), (0.9, 2, True), (0.5, 0, False), (0.9, 99, False)]
)
def test_cases_n11_an_average_that_is_longer_than_its_run_is_reported(folder, caplog, decay, start, said):
    with caplog.at_level("INFO"):
        fit(build(), ExponentialAverage(decay, start))
    found = [each for each in caplog.messages if "ExponentialAverage" in each]
    advice = f"averages only {6 - start}, so validations measure mostly its first weights; lower the decay, such as to"
    assert len(found) == said and all(advice in each for each in found)
