"""Totals of a run in its metrics: tokens, bytes and seconds of training."""

from itertools import count
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from tiny_run import read_rows

from lightning_xt.data.base import DataModule
from lightning_xt.training.callbacks import throughput

BATCH = torch.zeros(2, 5)


@pytest.fixture
def begin(monkeypatch):
    """Return a callback in training, whose clock counts its readings, with its Trainer and what it has logged."""
    clock = count()
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))

    def build(step=0, state=None, bytes_per_token=1.0):
        logger, callback, data = Mock(), throughput.Throughput(), Mock(spec=DataModule)
        data.bytes_per_token.return_value = bytes_per_token
        trainer = SimpleNamespace(
            global_step=step,
            world_size=2,
            log_every_n_steps=2,
            max_steps=-1,
            train_dataloader=None,
            loggers=[logger],
            state=SimpleNamespace(fn="fit"),
            sanity_checking=False,
            datamodule=data,
        )
        if state:
            callback.load_state_dict(state)
        callback.on_train_start(trainer, None)
        return callback, trainer, logger.log_metrics

    return build


def train(callback, trainer, steps):
    module = SimpleNamespace(log=Mock(), device=torch.device("cpu"))
    for _ in range(steps):
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, module, None, BATCH, 0)


def test_totals_continue_in_a_resumed_run(begin):
    callback, trainer, log = begin(bytes_per_token=1.5)
    train(callback, trainer, 3)
    # Two processes with two rows of four predicted tokens each; the clock was read at the start and at step 2.
    log.assert_called_once_with({"train/tokens": 32, "train/bytes": 48.0, "train/seconds": 1.0}, 2)
    state = callback.state_dict()
    assert state["tokens"] == 48
    callback, trainer, log = begin(3, state, bytes_per_token=None)
    train(callback, trainer, 1)
    totals, step = log.call_args.args
    assert step == 4
    assert totals == {"train/tokens": 64, "train/seconds": state["seconds"] + 1.0}


def test_validations_are_logged_and_not_counted(begin):
    callback, trainer, log = begin()
    train(callback, trainer, 1)
    callback.on_validation_start(trainer, None)
    during = callback.state_dict()
    callback.on_validation_epoch_end(trainer, None)
    log.assert_called_once_with({"train/tokens": 16, "train/bytes": 16.0, "train/seconds": during["seconds"]}, 1)
    callback.on_validation_end(trainer, None)
    assert callback.state_dict()["seconds"] == during["seconds"] + 1.0
    trainer.state.fn = "validate"
    callback.on_validation_start(trainer, None)
    callback.on_validation_epoch_end(trainer, None)
    assert log.call_count == 1


def test_totals_that_a_checkpoint_lacks_are_omitted(begin):
    callback, trainer, log = begin(step=4)
    train(callback, trainer, 2)
    assert not log.called
    assert callback.state_dict() == {}


def test_the_totals_of_a_run(trained):
    rows = read_rows()
    assert [int(row["train/tokens"]) for row in rows] == [16 * int(row["step"]) for row in rows]
    assert [float(row["train/bytes"]) for row in rows] == [float(row["train/tokens"]) for row in rows]
    seconds = [float(row["train/seconds"]) for row in rows]
    assert seconds[0] > 0 and seconds == sorted(seconds)
    state = torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["callbacks"]["Throughput"]
    assert state["tokens"] == 96 and state["seconds"] >= seconds[-1]
