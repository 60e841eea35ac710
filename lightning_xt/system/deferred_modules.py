"""Modules of other packages that are imported once something of them is used, for they take long."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

STATE = "__deferral__"
"""Name of a deferred module's `_Deferral` in it."""
LONGEST_WAIT = 30.0
"""Seconds that a thread waits for another one to execute a module."""


class _Deferral:
    """State of a module that is not executed yet.

    Args:
        loader: executes the module.
        early: functions that return attributes which need no execution, by name.
    """

    def __init__(self, loader: Loader, early: Mapping[str, Callable[[], Any]]) -> None:
        self.loader, self.early = loader, early
        self.lock, self.runs = threading.RLock(), False


class DeferredModule(ModuleType):
    """Module that is executed at the first use of an attribute, besides the early ones; then it is a plain module."""

    def __getattr__(self, name: str) -> Any:
        state: _Deferral | None = vars(self).get(STATE)
        if state is not None and not state.runs and name in state.early:
            return state.early[name]()
        # Libraries ask all modules for such names as __warningregistry__.
        if not name.startswith("__") or name == "__all__":
            execute(self)
            if name in vars(self):
                return vars(self)[name]
            if callable(fallback := vars(self).get("__getattr__")):
                return fallback(name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        execute(self)
        return list(ModuleType.__dir__(self))


def execute(module: ModuleType) -> None:
    """Execute a deferred module; do nothing with any other, or from within its execution."""
    state: _Deferral | None = vars(module).get(STATE)
    if state is None:
        return
    # As Python, continue with a module that is executed in part where two threads wait for each other's imports.
    waited = state.lock.acquire(timeout=LONGEST_WAIT)
    try:
        if not state.runs and STATE in vars(module):
            _run(module, state)
    finally:
        if waited:
            state.lock.release()


def _run(module: ModuleType, state: _Deferral) -> None:
    state.runs = True
    try:
        state.loader.exec_module(module)
        del vars(module)[STATE]
        module.__class__ = ModuleType
    finally:
        state.runs = False


def is_executed(name: str) -> bool:
    """Return True if a module is imported and not deferred any more."""
    module = sys.modules.get(name)
    return module is not None and STATE not in vars(module)


class _DeferringLoader(Loader):
    def __init__(self, loader: Loader, early: Mapping[str, Callable[[], Any]]) -> None:
        self._loader, self._early = loader, early

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        vars(module)[STATE] = _Deferral(self._loader, self._early)
        module.__class__ = DeferredModule


class _ImportedLoader(Loader):
    """Loader of a module that the execution of its package has imported meanwhile."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not self._spec:
            module.__spec__ = self._spec


class DeferringFinder:
    """Finder, for `sys.meta_path`, that defers modules which are not imported yet.

    The import of a submodule executes its deferred package first, as Python does, unless it is an early one.

    Args:
        modules: for each module its early attributes, which need no execution: functions that return them, by name.
        submodules: names of submodules that need nothing of their package.
    """

    def __init__(self, modules: Mapping[str, Mapping[str, Callable[[], Any]]], submodules: Sequence[str] = ()) -> None:
        self._modules, self._submodules = modules, frozenset(submodules)
        self._roots = {name.partition(".")[0] for name in modules}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # A target is a module that is loaded again.
        if target is not None or name.partition(".")[0] not in self._roots:
            return None
        if name not in self._submodules:
            package = name
            while package := package.rpartition(".")[0]:
                if (found := sys.modules.get(package)) is not None:
                    execute(found)
            # Where it stayed, Python would take its own specification, and load it again.
            if (imported := sys.modules.pop(name, None)) is not None:
                return ModuleSpec(name, _ImportedLoader(imported))
        if name not in self._modules:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeferringLoader(spec.loader, self._modules[name])
        return spec
