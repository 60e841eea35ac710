"""A training step of the command line does what Lightning's does, without the work that is not needed."""

from collections import OrderedDict

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_xt.commands.trainer.cluster import adopt_trainer
from lightning_xt.training.empty_hooks import STEP_HOOKS, drop_empty_hooks
from lightning_xt.training.lightning_internals import ResultCollection
from lightning_xt.training.no_profiler import NoProfiler
from lightning_xt.training.step_loop import StepLoop
from lightning_xt.training.step_results import StepResults

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Line(LightningModule):
    """Module of one weight that logs its loss in every third batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        loss = (self.weight * batch.sum() - 1) ** 2
        if batch_idx % 3 == 0:
            self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class OnlyBatch(Line):
    """Module whose step takes no number of the batch."""

    def training_step(self, batch):
        self.log("both", batch.mean(), on_step=True, on_epoch=True, batch_size=1)
        return self.weight * batch.sum()


class Seen(Callback):
    """Callback that logs in some batches, and notes the metrics after each."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        connector = trainer._logger_connector
        known = (connector._callback_metrics, connector._progress_bar_metrics, connector._logged_metrics)
        self.seen.append([{name: float(value) for name, value in each.items()} for each in known])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx in (1, 4):
            pl_module.log("late", float(batch_idx))
        self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def train(module, adopts):
    torch.manual_seed(0)
    seen = Seen()
    trainer = Trainer(max_epochs=2, callbacks=[seen, Callback()], **QUIET)
    if adopts:
        adopt_trainer(trainer)
    trainer.fit(module, torch.utils.data.DataLoader(torch.arange(7.0), batch_size=1))
    assert isinstance(trainer.fit_loop.epoch_loop, StepLoop) is adopts
    return seen.seen, module.weight.item(), {name: float(each) for name, each in trainer.callback_metrics.items()}


@pytest.mark.parametrize("kind", [Line, OnlyBatch])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_metrics_and_weights_are_those_of_lightning(kind):
    assert train(kind(), adopts=True) == train(kind(), adopts=False)


def test_only_hooks_that_do_something_are_called():
    class One(Callback):
        def on_after_backward(self, trainer, pl_module):
            pass

    one, other = One(), Callback()
    other.on_before_backward = print
    drop_empty_hooks(Trainer(callbacks=[one, other], **QUIET))
    assert [name for name in STEP_HOOKS if callable(getattr(one, name))] == ["on_after_backward"]
    assert [name for name in STEP_HOOKS if callable(getattr(other, name))] == ["on_before_backward"]
    assert callable(Callback().on_after_backward)


def test_a_custom_profiler_stays():
    trainer, profiled = Trainer(**QUIET), Trainer(profiler=SimpleProfiler(), **QUIET)
    adopt_trainer(trainer)
    adopt_trainer(profiled)
    assert type(profiled.profiler) is SimpleProfiler
    profiler = trainer.profiler
    assert isinstance(profiler, NoProfiler)
    with profiler.profile("outer"), profiler.profile("inner"):
        pass


def test_a_value_that_is_logged_again_is_replaced(monkeypatch):
    ours, theirs = StepResults(), ResultCollection(training=True)
    calls = []
    whole = ResultCollection.log
    monkeypatch.setattr(ResultCollection, "log", lambda self, *a, **o: (calls.append(self), whole(self, *a, **o)))
    for value in (1.0, 2.0, float("nan"), 4.0):
        for each in (ours, theirs):
            each.log("training_step", "loss", torch.tensor(value), on_step=True, on_epoch=False, prog_bar=True)
            each.log("training_step", "mean", torch.tensor(value), on_step=True, on_epoch=True)
        found, expected = ours.metrics(True), theirs.metrics(True)
        assert str(found) == str(expected)
    assert len([each for each in calls if each is ours]) == 1 + 4
    assert ours["training_step.mean"].compute().isnan()
    with pytest.raises(MisconfigurationException, match="with different arguments"):
        ours.log("training_step", "loss", torch.tensor(1.0), on_step=True, on_epoch=False, prog_bar=False)


def test_the_arguments_of_a_step_are_read_again_for_another_module():
    trainer = Trainer(**QUIET)
    loop = StepLoop(trainer)
    for module in (Line(), OnlyBatch(), Line()):
        trainer.strategy.connect(module)
        names = ["batch", "batch_idx"] if type(module) is Line else ["batch"]
        for batch_idx in (0, 1):
            found = loop._build_kwargs(OrderedDict(), "rows", batch_idx)
            assert found == dict(zip(names, ("rows", batch_idx), strict=False))


def test_a_batch_of_several_processes_broadcasts_nothing(monkeypatch):
    trainer, sent = Trainer(**QUIET), []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, src: sent.append(tensor))
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()
    assert len(sent) == 1
    StepLoop(trainer)._broadcast_sigterm_tensor()
    assert len(sent) == 1
