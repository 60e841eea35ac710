"""Parser of command lines and configs."""

import re
import warnings
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from os import getcwd
from types import FunctionType
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, Namespace, set_parsing_settings
from lightning.pytorch import cli
from lightning.pytorch.cli import LightningArgumentParser

from lightning_xt.system.shipped_configs import find_config
from lightning_xt.training.faster_parsing import faster_parsing, recreate_branches
from lightning_xt.training.lightning_internals import PARSING_STATE, ActionTypeHint

# Lightning has values of options fetched from addresses.
set_parsing_settings(config_read_mode_fsspec_enabled=False)
# Texts of an Enum, such as a default of Lightning's Timer, are written as texts.
yaml.SafeDumper.add_multi_representer(str, lambda dumper, text: dumper.represent_str(str.__str__(text)))

_PARSED: ContextVar[dict[Any, Any] | None] = ContextVar("_PARSED", default=None)
"""Options of nested classes that the running parse has parsed already, by everything that they depend on."""


class ConfigFile(ActionConfigFile):
    """Option that names a config, which may be a shipped one."""

    @staticmethod
    def apply_config(parser: Any, cfg: Namespace, dest: str, value: Any) -> None:
        ActionConfigFile.apply_config(parser, cfg, dest, str(find_config(value)))


class ConfigParser(LightningArgumentParser):
    """LightningArgumentParser that parses the options of each nested class once, and knows no abbreviations.

    jsonargparse parses the options of a class again for defaults, for each config and option, and to validate, and at
    each of these again those of the classes in it: the same work up to hundreds of times for what is four classes deep.
    """

    def add_argument(self, *args: Any, **options: Any) -> Any:
        if options.get("action") is ActionConfigFile:
            options["action"] = ConfigFile
        return super().add_argument(*args, **options)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None, *rest: Any, **options: Any
    ) -> Namespace:
        if _is_of_nested_class(self) and args is not None:
            # jsonargparse formats the value of a nested option, which it has read, to parse it once more.
            args = [re.sub(r"^(--[^=]+)=None$", r"\1=null", arg) for arg in args]
        with _one_parse():
            found: Namespace = super().parse_args(args, namespace, *rest, **options)
        return found

    def parse_object(
        self, obj: Namespace | dict[str, Any], namespace: Namespace | None = None, *rest: Any, **options: Any
    ) -> Namespace:
        with _one_parse() as parsed:
            key = _key(self, obj, namespace, rest, options) if _is_of_nested_class(self) else None
            found = parsed.get(key)
            if found is None:
                found = super().parse_object(obj, namespace, *rest, **options)
                if key is not None:
                    parsed[key] = found.clone()
            return found.clone()

    def dump(self, *args: Any, **options: Any) -> str:
        """Return options as text; they were validated where they were parsed."""
        options = {"skip_validation": True, **options}
        with faster_parsing():
            try:
                # A null in a list of classes is else written as an object that cannot be written.
                with warnings.catch_warnings(action="error", category=UserWarning):
                    return str(super().dump(*args, **options))
            except UserWarning:
                return str(super().dump(*args, **options))

    def _check_value_key(self, action: Any, value: Any, key: str, cfg: Namespace | None, append: bool = False) -> Any:
        """Parse one option; of the others, a typed one reads its own former value only."""
        if not isinstance(action, ActionTypeHint):
            return super()._check_value_key(action, value, key, cfg, append=append)
        with _one_parse() as parsed:
            lookup = _key(self, action, value, key, cfg.get(action.dest) if cfg else None, bool(cfg), append)
            if lookup is None or lookup not in parsed:
                found = super()._check_value_key(action, value, key, cfg, append=append)
                if lookup is None:
                    return found
                parsed[lookup] = recreate_branches(found)
            return recreate_branches(parsed[lookup])

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """Return the options that an unknown one may abbreviate: none."""
        return []


# `instantiate_module` of Lightning, which builds the module of a config or a checkpoint, parses with this class.
cli.ArgumentParser = ConfigParser  # type: ignore[assignment, misc]


def _is_of_nested_class(parser: ConfigParser) -> bool:
    return getattr(parser, "_inner_parser", False)


@contextmanager
def _one_parse() -> Iterator[dict[Any, Any]]:
    """Yield what the running parse has parsed; the outermost call begins with nothing."""
    parsed = _PARSED.get()
    if parsed is not None:
        yield parsed
        return
    token = _PARSED.set(parsed := {})
    try:
        with faster_parsing():
            yield parsed
    finally:
        _PARSED.reset(token)


def _key(parser: ConfigParser, *given: Any) -> Any:
    """Return all that the outcome of a parse depends on, to look it up; None if that cannot be compared."""
    state = [each.get() for each in PARSING_STATE]
    try:
        return parser, getcwd(), _comparable([*given, state])
    except TypeError:
        return None


def _comparable(value: Any) -> Any:
    """Return a hashable value, equal for equal values, of which 1, 1.0 and True are not; TypeError if it may change."""
    kind = type(value)
    if kind is Namespace:
        return kind, _comparable(vars(value))
    if kind is dict:
        return kind, tuple((name, _comparable(each)) for name, each in value.items())
    if kind in (list, tuple):
        return kind, tuple(map(_comparable, value))
    if kind is float:
        return kind, repr(value)
    if kind not in (str, int, bool, type(None), type, ABCMeta, FunctionType, ActionTypeHint):
        raise TypeError(f"a {kind.__name__} may change")
    return kind, value
