"""What we use of Lightning and jsonargparse without their promise: a release that takes it away fails here first."""

import pytest
from jsonargparse import _deprecated
from lightning.pytorch import LightningModule, Trainer, cli
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core.mixins import hparams_mixin
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities import model_helpers


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (LightningCLI, "_parse_ckpt_path"),
        (LightningCLI, "_run_subcommand"),
        (LightningCLI, "_prepare_subcommand_kwargs"),
        (LightningCLI, "_get"),
        (LightningCLI, "_parser"),
        (ModelCheckpoint, "_save_none_monitor_checkpoint"),
        (ModelCheckpoint, "_monitor_candidates"),
        (RichProgressBar, "_get_train_description"),
        (RichProgressBar, "total_train_batches"),
        (_SignalConnector, "register_signal_handlers"),
        (_LoggerConnector, "update_train_step_metrics"),
        (cli, "instantiate_module"),
        (model_helpers, "_restricted_classmethod"),
        (hparams_mixin, "_given_hyperparameters_context"),
        (_deprecated, "JsonargparseDeprecationWarning"),
    ],
)
def test_a_class_or_module_has_it(owner, name):
    assert hasattr(owner, name)


def test_objects_have_them(tmp_path):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    loop = trainer.fit_loop.epoch_loop
    assert loop._batches_that_stepped == loop.batch_progress.total.processed == 0
    assert trainer.num_val_batches == []
    assert trainer._signal_connector.received_sigterm is False
    connector = trainer._logger_connector
    assert connector._callback_metrics == {}
    assert connector._first_loop_iter is None
    assert loop.max_steps == trainer.max_steps == -1
    assert loop._should_accumulate() is False
    assert loop.val_loop.restarting is loop.val_loop._has_run is False
    assert set(vars(loop.val_loop.batch_progress.current)) == {"ready", "started", "processed", "completed"}
    assert ModelCheckpoint()._last_global_step_saved == 0
    assert LightningModule()._trainer is None
    assert TensorBoardLogger(tmp_path)._experiment is None
    bar = RichProgressBar()
    assert bar.progress is None
    assert "_console" in vars(bar)
