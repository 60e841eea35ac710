"""Private names of Lightning, jsonargparse and torch that the package uses; `test_lightning_internals` watches them.

Import this module before Lightning: it imports Lightning without torch's compiler, which costs more CPU time than all
the rest of Lightning and which only `torch.compile` and optimizers need, which import it themselves.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _KindOfOptimizedModule(type):
    """Class of a stand-in for the compiler's OptimizedModule, whose instances exist only once the compiler does."""

    def __instancecheck__(cls, instance: object) -> bool:
        compiler = sys.modules.get(COMPILER)
        return compiler is not None and isinstance(instance, compiler.OptimizedModule)


class OptimizedModule(metaclass=_KindOfOptimizedModule):
    """Stand-in for `torch._dynamo.OptimizedModule`, for Lightning's `isinstance` checks."""


class _AbsentCompiler(ModuleType):
    """Stand-in for `torch._dynamo` with what Lightning uses of it at import; anything else imports the real one."""

    OptimizedModule = OptimizedModule

    @staticmethod
    def disable(function: Callable[..., Any], recursive: bool = True, reason: str | None = None) -> Callable[..., Any]:
        """Return the function so wrapped that its first call imports the compiler to disable it there."""
        return torch._disable_dynamo(function, recursive)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        sys.modules.pop(COMPILER, None)
        return getattr(importlib.import_module(COMPILER), name)


def _import_lightning() -> None:
    """Import Lightning; do not import torch's compiler for it."""
    if COMPILER in sys.modules or "lightning.pytorch" in sys.modules:
        importlib.import_module("lightning.pytorch.cli")
        return
    stand_in = _AbsentCompiler(COMPILER)
    sys.modules[COMPILER] = stand_in
    try:
        importlib.import_module("lightning.pytorch.cli")
    finally:
        if sys.modules.get(COMPILER) is stand_in:
            del sys.modules[COMPILER]


_import_lightning()

# After Lightning has been imported as above.
from jsonargparse import _common, _link_arguments, _paths, _typehints  # noqa: E402
from jsonargparse._deprecated import JsonargparseDeprecationWarning as JsonargparseDeprecationWarning  # noqa: E402
from jsonargparse._loaders_dumpers import get_yaml_default_loader as get_yaml_default_loader  # noqa: E402
from jsonargparse._namespace import recreate_branches as recreate_branches  # noqa: E402
from jsonargparse._typehints import ActionTypeHint as ActionTypeHint  # noqa: E402

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
