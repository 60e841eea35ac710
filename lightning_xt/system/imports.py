"""The gate for names: the classes and functions that a config, a flag or a checkpoint may name.

Of four installed packages public classes may be named, and only in slots of their family. Of the user's modules
functions may be named too. The decision falls by the name before an import, by kind and family before a call.
"""

import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import is_dataclass
from typing import Any

import lightning_xt
from lightning_xt.system.discovery import import_named, import_path, import_submodules
from lightning_xt.system.garbage import pause_garbage_collection
from lightning_xt.system.own_modules import ALLOW, add_current_folder, hold_current_folder, is_own

PACKAGES = ("lightning_xt", "lightning", "torch", "torchmetrics")
"""Installed packages whose classes a config may name."""
FAMILIES = (
    "torch.nn.modules.module.Module",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "torch.utils.data.dataset.Dataset",
    "torch.utils.data.dataloader.DataLoader",
    "torch.utils.data.sampler.Sampler",
    "lightning.fabric.accelerators.accelerator.Accelerator",
    "lightning.fabric.loggers.logger.Logger",
    "lightning.fabric.plugins.environments.cluster_environment.ClusterEnvironment",
    "lightning.fabric.plugins.io.checkpoint_io.CheckpointIO",
    "lightning.fabric.plugins.precision.precision.Precision",
    "lightning.pytorch.callbacks.callback.Callback",
    "lightning.pytorch.core.datamodule.LightningDataModule",
    "lightning.pytorch.plugins.layer_sync.LayerSync",
    "lightning.pytorch.profilers.profiler.Profiler",
    "lightning.pytorch.strategies.strategy.Strategy",
)
"""Base classes of slots, besides those of this package. An option of another type names no installed class."""

PARSER_FUNCTIONS = (
    "import_object", "adapt_typehints", "cached_get_class_parser", "parse_value_or_config", "adapt_subconfig_path",
    "resolve_class_path_by_name",
)  # fmt: skip
"""Functions of the parser that are replaced while it is guarded."""
SUB_CONFIGS = (".yaml", ".yml", ".json")
"""Ends of values that are files with the options of one class or section. Other values are never opened."""


class NotAllowedError(ImportError):
    """Raised for a name that no config and no checkpoint may give."""


class _Refused(BaseException):
    """Ends parsing: after any Exception the parser would try another type, or take the value as it stands."""


@contextmanager
def guarded_imports() -> Iterator[None]:
    """Have the parser ask `find` for every class and function that a value names; ValueError if it may not name one."""
    actions, parser = _import_parser()
    original: dict[str, Any] = {name: getattr(parser, name) for name in PARSER_FUNCTIONS}
    slots: list[Any] = [None]  # the types of the values that are being read, the innermost last

    def within(name: str, place: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            slots.append(place(*args, **options))
            try:
                return original[name](*args, **options)
            finally:
                slots.pop()

        return call

    def parse_value_or_config(value: Any, enable_path: bool = True, **options: Any) -> Any:
        return original["parse_value_or_config"](value, enable_path and is_sub_config(value), **options)

    def adapt_subconfig_path(value: Any, slot: Any, options: dict[str, Any]) -> Any:
        options = {**options, "enable_path": options.get("enable_path") and is_sub_config(value)}
        return original["adapt_subconfig_path"](value, slot, options)

    try:
        parser.resolve_class_path_by_name = _resolve_lazily(original["resolve_class_path_by_name"])
        parser.import_object = actions.import_object = _guard(original["import_object"], slots)
        parser.parse_value_or_config = actions.parse_value_or_config = parse_value_or_config
        parser.adapt_subconfig_path = adapt_subconfig_path
        parser.adapt_typehints = within("adapt_typehints", lambda value, slot, *args, **options: slot)
        # Reads signatures only, for a slot further down.
        parser.cached_get_class_parser = within("cached_get_class_parser", lambda **options: None)
        with hold_current_folder():
            yield
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    finally:
        for name, function in original.items():
            setattr(parser, name, function)
        actions.import_object, actions.parse_value_or_config = parser.import_object, parser.parse_value_or_config


def _import_parser() -> tuple[Any, Any]:
    """Import the two modules of the parser whose functions are replaced."""
    with pause_garbage_collection():
        return importlib.import_module("jsonargparse._actions"), importlib.import_module("jsonargparse._typehints")


def _resolve_lazily(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the parser's search for a class by name, which first imports the modules that are named for the class."""

    def resolve_class_path_by_name(slot: Any, name: str) -> Any:
        if "." not in name and name[:1].isupper():
            import_named(name)
            # A class in a file of another name.
            if "." not in original(slot, name):
                import_submodules(lightning_xt)
        return original(slot, name)

    return resolve_class_path_by_name


def is_sub_config(value: Any) -> bool:
    """Return True for a value that names a file of options. A file called as a class is never taken for it."""
    return isinstance(value, str) and value.endswith(SUB_CONFIGS)


def _guard(original: Callable[..., Any], slots: list[Any]) -> Callable[..., Any]:
    """Return the parser's import of a name behind the gate."""

    def import_object(name: Any, **options: Any) -> Any:
        # Names that stand in code, and names that the parser itself refuses.
        if options.get("check_path") is False or not re.fullmatch(r"\w+(\.\w+)+", str(name)):
            return original(name, **options)
        if is_dataclass(slots[-1]) and imported(name) is slots[-1]:
            # Plain options whose class the code names.
            return slots[-1]
        try:
            find(name, slots[-1])
        except NotAllowedError as error:
            raise _Refused(str(error)) from error
        # Imported again, because the parser remembers where an object comes from.
        return original(name, **options)

    return import_object


def refusal(path: str) -> str | None:
    """Return why a name, as typed, is not imported, with the way out; None if it may be. Nothing is imported here."""
    package, *rest = path.split(".")
    if package in PACKAGES and any(name.startswith("_") for name in rest):
        return f"{path} is not imported: it is private; name a public class of {package}"
    if package in PACKAGES or is_own(package):
        return None
    return (
        f"{path} is not imported: configs and checkpoints may name what is in {', '.join(PACKAGES)} and in modules of "
        f"your own, nothing else that is installed; if you trust it, set the environment variable {ALLOW}={package}"
    )


def find(path: str, slot: Any = None) -> Any:
    """Import the class, or the function of the user's, that a config or a checkpoint names.

    Args:
        path: its import path.
        slot: the type of the option. None = unknown, any class will do.

    Raises:
        NotAllowedError: it may not be named there.
        ImportError: it is not of the slot's family, or there is no such module.
        AttributeError: the module has no such name.
    """
    package, families = path.partition(".")[0], list_families(slot)
    base = typing.get_origin(slot) or slot
    plain = not isinstance(base, type) or base.__module__ in ("builtins", "typing")
    if slot is not None and not families and (plain or package in PACKAGES):
        takes = "plain values" if plain else "classes and functions of your own"
        raise NotAllowedError(f"{path} is not imported: the option takes only {takes}")
    if reason := refusal(path):
        raise NotAllowedError(reason)
    with nullcontext() if package in PACKAGES else add_current_folder():
        found = _load(path)
    place = path
    if isinstance(found, type) or inspect.isroutine(found):
        owner: Any = getattr(found, "__self__", found)
        place = f"{found.__module__ or type(owner).__module__}.{found.__qualname__}"
    if place.partition(".")[0] not in PACKAGES:
        if reason := refusal(place):
            raise NotAllowedError(f"{path} is {place}, and {reason}")
        return found
    if not isinstance(found, type):
        kind = ImportError if families else NotAllowedError
        raise kind(f"Import path {path} is not a class; functions are named in modules of your own only")
    if slot is not None and not issubclass(found, families):
        names = " or ".join(family.__name__ for family in families) or "function of your own"
        raise ImportError(f"Import path {path} does not correspond to a subclass of {names}")
    return found


def imported(path: str) -> type | None:
    """Return a class that was imported before; None if there is none. Text that only looks like a name does nothing."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def _load(path: str) -> Any:
    """Import a name. A class may hold it; a module that only imports its module may not."""
    module, _, name = path.rpartition(".")
    try:
        holder: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        outer, _, inner = module.rpartition(".")
        holder = getattr(importlib.import_module(outer), inner, None) if outer and error.name == module else None
        if isinstance(holder, types.ModuleType):
            place = f"{holder.__name__}.{name}"
            raise NotAllowedError(f"{path} is {place}, and {refusal(place) or f'named as {place} only'}") from None
        if not isinstance(holder, type):
            raise
    found = getattr(holder, name)
    if isinstance(found, types.ModuleType):
        raise NotAllowedError(f"{path} is a module; name a class in it")
    return found


def list_families(slot: Any) -> tuple[type, ...]:
    """Return the base classes of what a slot takes; none if its type belongs to no family."""
    origin, arguments = typing.get_origin(slot), typing.get_args(slot)
    if origin in (typing.Union, types.UnionType):
        return tuple(family for each in arguments for family in list_families(each))
    if origin in (Callable, type):
        return list_families(arguments[-1]) if arguments else ()
    base = origin or slot
    if not isinstance(base, type):
        return ()
    names = set(map(import_path, base.__mro__))
    return (base,) if names.intersection(FAMILIES) or base.__module__.startswith("lightning_xt.") else ()
