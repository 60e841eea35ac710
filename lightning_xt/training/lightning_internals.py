"""Private names of Lightning, jsonargparse and torch that the package uses; `test_lightning_internals` watches them.

Import this module before Lightning: it imports Lightning without torch's compiler and without most of torchmetrics,
which imports matplotlib and, where it is installed, transformers. They cost several times the CPU time of all the rest
of Lightning, and are imported once something of them is used, besides the names here.
"""

import functools
import importlib
import logging
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from lightning_xt.system.deferred_modules import DeferringFinder, execute, is_executed

COMPILER = "torch._dynamo"
METRICS = "torchmetrics"
PLOT = "torchmetrics.utilities.plot"


class _KindOfOptimizedModule(type):
    """Class of a stand-in for the compiler's OptimizedModule, whose instances exist only once the compiler does."""

    def __instancecheck__(cls, instance: object) -> bool:
        return is_executed(COMPILER) and isinstance(instance, sys.modules[COMPILER].OptimizedModule)


class OptimizedModule(metaclass=_KindOfOptimizedModule):
    """Stand-in for `torch._dynamo.OptimizedModule`, for Lightning's `isinstance` checks."""


def disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
    """Wrap a function so that the compiler, once it is there, does not compile it, as `torch._dynamo.disable` does.

    Torch wraps the methods of optimizers in it.
    """
    if function is None:
        return functools.partial(disable, recursive=recursive, **options)
    disabled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if disabled is None and is_executed(COMPILER):
            disabled = sys.modules[COMPILER].disable(function, recursive, **options)
        return (disabled or function)(*args, **kwargs)

    return call


def graph_break(*args: Any, **options: Any) -> None:
    """Do nothing, as `torch._dynamo.graph_break` outside of compiled functions."""


def plot_single_or_multi_val(*args: Any, **options: Any) -> Any:
    """Plot values of a metric, by `torchmetrics.utilities.plot`."""
    plot = importlib.import_module(PLOT)
    execute(plot)
    return plot.plot_single_or_multi_val(*args, **options)


def _import_name(path: str, name: str) -> Any:
    return getattr(importlib.import_module(path), name)


def _import_lightning() -> None:
    """Import Lightning; do not import torch's compiler and all of torchmetrics for it."""
    early: dict[str, dict[str, Callable[[], Any]]] = {
        COMPILER: {
            "OptimizedModule": lambda: OptimizedModule,
            "disable": lambda: disable,
            "graph_break": lambda: graph_break,
        },
        METRICS: {
            "Metric": lambda: _import_name(f"{METRICS}.metric", "Metric"),
            "MetricCollection": lambda: _import_name(f"{METRICS}.collections", "MetricCollection"),
            "__version__": lambda: version(METRICS),
            "_logger": lambda: logging.getLogger(METRICS),
        },
        PLOT: {
            "_AX_TYPE": lambda: object,
            "_PLOT_OUT_TYPE": lambda: tuple[object, object],
            "plot_single_or_multi_val": lambda: plot_single_or_multi_val,
        },
    }
    modules = ("metric", "collections", "utilities")
    parts = ("checks", "data", "distributed", "exceptions", "imports", "plot", "prints")
    alone = [f"{METRICS}.{each}" for each in (*modules, *(f"utilities.{part}" for part in parts))]
    sys.meta_path.insert(0, DeferringFinder(early, alone))
    if METRICS not in sys.modules:
        # First, as in torchmetrics itself: its `metric` and `utilities.checks` import each other.
        importlib.import_module(f"{METRICS}.utilities")
    importlib.import_module("lightning.pytorch.cli")


_import_lightning()

# After Lightning has been imported as above.
from jsonargparse import _actions as _actions  # noqa: E402
from jsonargparse import _common, _link_arguments, _paths, _typehints  # noqa: E402
from jsonargparse import _core as _core  # noqa: E402
from jsonargparse import _namespace as _namespace  # noqa: E402
from jsonargparse import _subcommands as _subcommands  # noqa: E402
from jsonargparse._deprecated import JsonargparseDeprecationWarning as JsonargparseDeprecationWarning  # noqa: E402
from jsonargparse._loaders_dumpers import get_yaml_default_loader as get_yaml_default_loader  # noqa: E402
from jsonargparse._typehints import ActionTypeHint as ActionTypeHint  # noqa: E402
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as TrainingEpochLoop  # noqa: E402, F401
from lightning.pytorch.trainer.connectors.logger_connector.result import (  # noqa: E402
    _ResultCollection as ResultCollection,  # noqa: F401
)

PARSING_STATE = (
    _common.lenient_check,
    _common.load_value_mode,
    _common.nested_links,
    _common.parsing_defaults,
    _common.validating_defaults,
    _link_arguments.apply_config_skip,
    _paths._current_path_dir,
    _typehints.allow_default_instance,
    _typehints.sub_defaults,
)
"""Context variables that change what jsonargparse makes of the options of a nested class."""
