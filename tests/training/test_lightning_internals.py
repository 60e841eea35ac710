"""Canary: private names of Lightning and jsonargparse that we use; a release without them fails here first."""

import argparse
import subprocess
import sys

import pytest
import torch
from jsonargparse import (
    ArgumentParser,
    Namespace,
    _actions,
    _common,
    _core,
    _deprecated,
    _link_arguments,
    _loaders_dumpers,
    _namespace,
    _paths,
    _subcommands,
    _typehints,
)
from lightning.fabric import wrappers
from lightning.pytorch import LightningModule, Trainer, cli
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, Timer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core.mixins import hparams_mixin
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors import checkpoint_connector
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities import compile, model_helpers

from lightning_xt.data.base import DataModule


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
        (_TrainingEpochLoop, "_build_kwargs"),
        (_TrainingEpochLoop, "_broadcast_sigterm_tensor"),
        (cli, "instantiate_module"),
        (cli, "ArgumentParser"),
        (model_helpers, "_restricted_classmethod"),
        (hparams_mixin, "_given_hyperparameters_context"),
        (_deprecated, "JsonargparseDeprecationWarning"),
        (_actions, "import_object"),
        (_typehints, "import_object"),
        (_typehints, "adapt_typehints"),
        (_typehints, "cached_get_class_parser"),
        (_typehints, "allow_default_instance"),
        (_typehints, "sub_defaults"),
        (_link_arguments, "apply_config_skip"),
        (_paths, "_current_path_dir"),
        *((_common, name) for name in ("lenient_check", "load_value_mode", "nested_links", "parsing_defaults")),
        (_common, "validating_defaults"),
        (ArgumentParser, "_check_value_key"),
        (_typehints, "ActionTypeHint"),
        *((_subcommands, name) for name in ("find_action_and_subcommand", "ActionSubCommands")),
        *((_actions, name) for name in ("filter_non_parsing_actions", "_ActionConfigLoad", "ActionFail")),
        *((_core, name) for name in ("find_action_and_subcommand", "recreate_branches")),
        *((_namespace, name) for name in ("recreate_branches", "add_clash_mark")),
        (_typehints, "resolve_class_path_by_name"),
        (Namespace, "_parse_key"),
        (_loaders_dumpers, "get_yaml_default_loader"),
        (checkpoint_connector, "_CheckpointConnector"),
        (checkpoint_connector._CheckpointConnector, "_parse_ckpt_path"),
        (argparse.ArgumentParser, "_get_option_tuples"),
        (wrappers, "OptimizedModule"),
        (compile, "OptimizedModule"),
        (torch, "_disable_dynamo"),
        (torch._dynamo, "OptimizedModule"),
        (torch._dynamo, "maybe_mark_dynamic"),
    ],
)
def test_a_class_or_module_has_it(owner, name):
    assert hasattr(owner, name)


def test_the_options_of_a_nested_class_have_a_parser_that_says_so():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=DataModule)
    parser.parse_args(["--data", "StandardLibrary"])
    parsers = list(_typehints._cached_class_parsers.values())
    assert parsers and all(each._inner_parser for each in parsers)
    assert not getattr(parser, "_inner_parser", False)


def run_python(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lightning_is_imported_without_the_compiler_and_works_with_it():
    run_python("""
import sys
from lightning_xt.training import lightning_internals
import torch
from lightning.fabric.wrappers import _unwrap_compiled
linear = torch.nn.Linear(2, 2)
assert _unwrap_compiled(linear) == (linear, None)
parameter = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.AdamW([parameter], lr=0.5)
parameter.grad = torch.ones(3)
optimizer.step()
assert parameter[0] < 0.6
assert not [name for name in sys.modules if name.startswith(("torch._dynamo.", "torch._inductor", "sympy"))]
import torch._dynamo.config
assert torch._dynamo.config is sys.modules["torch._dynamo.config"] is torch._dynamo.eval_frame.config
assert type(torch._dynamo) is type(torch)
compiled = torch.compile(linear, backend="eager")
assert _unwrap_compiled(compiled)[0] is linear
# An optimizer that stepped before the compiler came, and one in a compiled function.
graphs = []
def count(graph, inputs):
    graphs.append(graph)
    return graph
def step(x):
    y = x * 2
    optimizer.step()
    return y + parameter.sum()
torch.compile(step, backend=count)(torch.ones(3))
assert len(graphs) > 1 and parameter[0] < 0.1
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
_ResultCollection(training=True).reset()
""")


def test_lightning_is_imported_without_the_metrics_that_need_plots_and_transformers():
    run_python("""
import sys
from lightning_xt.training import lightning_internals
heavy = ("matplotlib", "transformers", "scipy", "torchmetrics.functional", "torchmetrics.aggregation")
assert not [name for name in heavy if name in sys.modules]
from torchmetrics import Metric, MetricCollection
assert "torchmetrics.aggregation" not in sys.modules
import torchmetrics.functional
from torchmetrics import Accuracy, MeanMetric
assert issubclass(MeanMetric, Metric) and torchmetrics.Metric is Metric is torchmetrics.metric.Metric
assert torchmetrics.MetricCollection is MetricCollection
metric = MeanMetric()
metric.update(3.0)
assert metric.compute() == 3 and metric.plot()[0] is not None
from torchmetrics.utilities import plot
assert plot._AX_TYPE is not object and callable(plot.plot_curve)
""")


def test_objects_have_them(tmp_path):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    loop = trainer.fit_loop.epoch_loop
    assert loop._batches_that_stepped == loop.batch_progress.total.processed == 0
    assert trainer.num_val_batches == []
    assert trainer._signal_connector.received_sigterm is False
    connector = trainer._logger_connector
    assert connector._callback_metrics == {}
    assert connector._first_loop_iter is connector._current_fx is None
    assert loop._results == {} and loop._results.batch is loop._results.batch_size is None
    assert LightningModule()._current_fx_name is None
    assert loop.max_steps == trainer.max_steps == -1
    assert loop._should_accumulate() is False
    assert loop._num_ready_batches_reached() is loop.batch_progress.is_last_batch is False
    assert trainer.fit_loop._can_stop_early is True
    assert loop.min_steps is trainer.min_steps is None
    assert loop.val_loop.restarting is loop.val_loop._has_run is False
    assert set(vars(loop.val_loop.batch_progress.current)) == {"ready", "started", "processed", "completed"}
    assert ModelCheckpoint()._last_global_step_saved == 0
    assert ModelCheckpoint()._every_n_epochs == 1
    assert ModelCheckpoint()._every_n_train_steps == 0
    assert torch.amp.GradScaler("cpu")._scale is None
    assert Timer()._interval == "step"
    assert LightningModule()._trainer is None
    assert TensorBoardLogger(tmp_path)._experiment is None
    bar = RichProgressBar()
    assert bar.progress is None
    assert "_console" in vars(bar)
