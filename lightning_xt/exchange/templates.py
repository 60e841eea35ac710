"""Templates of model configs: configs of this package that have settings of another library in place of some values.

One template serves both directions: a config is matched against it, which gives the settings, and settings fill it.

    part("RMSNorm", eps=Setting("rms_norm_eps"))      matches {"class_path": "lightning_xt.RMSNorm",
                                                               "init_args": {"eps": 1e-5}} with rms_norm_eps = 1e-5
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from lightning_xt.checkpoints.flat_config import format_value
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.public_names import find_public

PACKAGE = "lightning_xt."
WITHOUT_EFFECT = frozenset({"dropout", "z_loss", "backend", "checkpoint_layers", "zero_outputs"})
"""Options that change training or speed only, and that no template mentions."""

SHOWN = 3
"""Mismatches in a message."""


@dataclass(frozen=True)
class Setting:
    """Value of the other library, by its name there.

    Args:
        name: name of the setting.
        default: the value where the option is null, computed from the other settings. None = null is itself a value.
    """

    name: str
    default: Callable[[Mapping[str, Any]], Any] | None = None


@dataclass(frozen=True)
class Choice:
    """Setting whose values stand for parts, or for other values that are written differently here.

    Args:
        name: name of the setting.
        options: our template by the value of the setting.
    """

    name: str
    options: Mapping[Any, Any]


class Mismatch(NamedTuple):
    """Place where a config differs from a template.

    Args:
        path: the option, such as `model.decoder.attention.position`.
        found: its value.
        wanted: the value, or the alternatives, of the template.
    """

    path: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.path} is {self.found} instead of {self.wanted}"


@dataclass
class Match:
    """Settings of a config, the option of each, and the places where the config differs from the template."""

    settings: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)

    def describe(self) -> str:
        """Return the first mismatches, for a message."""
        more = f"; and {len(self.mismatches) - SHOWN} more" if len(self.mismatches) > SHOWN else ""
        return "; ".join(map(str, self.mismatches[:SHOWN])) + more


class OpenDefault(NamedTuple):
    """Option that is null, whose value follows from the other settings.

    Args:
        setting: the setting that it stands for.
        path: the option.
    """

    setting: Setting
    path: str

    def resolve(self, found: Match) -> None:
        """Bind the value, which must be that of other options with this setting."""
        # Settings without a default are bound at once.
        default = cast(Callable[[Mapping[str, Any]], Any], self.setting.default)
        try:
            value = default(found.settings)
        except KeyError:
            # A part with a setting that it follows from is another one, which is reported.
            return
        given = found.settings.setdefault(self.setting.name, value)
        if given != value:
            found.mismatches.append(Mismatch(self.path, f"null, that is {format_value(value)},", format_value(given)))


def part(name: str, **options: Any) -> dict[str, Any]:
    """Return the template of a class; options that are not given must have the class's defaults."""
    return {"class_path": name, "init_args": options}


def match_template(template: Mapping[str, Any], config: Mapping[str, Any], path: str) -> Match:
    """Match the options of a config that a template names against it.

    Args:
        template: template by option.
        config: config by option, complete as checkpoints hold it.
        path: name of the options' owner in messages.
    """
    found, open_defaults = Match(), list[OpenDefault]()
    for name, wanted in template.items():
        _match(wanted, config.get(name), f"{path}.{name}", found, open_defaults)
    for each in open_defaults:
        each.resolve(found)
    return found


def fill_template(template: Any, settings: Mapping[str, Any]) -> Any:
    """Return the config that a template makes from settings.

    Raises:
        KeyError: a setting is missing.
        ValueError: a setting has a value that no alternative of its template stands for.
    """
    if isinstance(template, Setting):
        return settings[template.name]
    if isinstance(template, Choice):
        chosen = settings[template.name]
        if not isinstance(chosen, Hashable) or chosen not in template.options:
            raise ValueError(
                f"{template.name} is {chosen!r}, but only {', '.join(map(repr, template.options))} have a counterpart"
            )
        return fill_template(template.options[chosen], settings)
    if isinstance(template, Mapping):
        return {name: fill_template(value, settings) for name, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill_template(each, settings) for each in template]
    return template


def _match(wanted: Any, value: Any, path: str, found: Match, open_defaults: list[OpenDefault]) -> None:
    """Match one value; settings and mismatches are added to what was found."""
    if isinstance(wanted, Setting):
        if value is None and wanted.default is not None:
            open_defaults.append(OpenDefault(wanted, path))
        else:
            _bind(wanted.name, value, path, found)
    elif isinstance(wanted, Choice):
        _match_choice(wanted, value, path, found, open_defaults)
    elif isinstance(wanted, Mapping) and "class_path" in wanted:
        _match_class(wanted, value, path, found, open_defaults)
    elif isinstance(wanted, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(wanted):
            found.mismatches.append(Mismatch(path, format_value(value), describe(wanted)))
            return
        for number, (one, each) in enumerate(zip(wanted, value, strict=True)):
            _match(one, each, f"{path}[{number}]", found, open_defaults)
    elif value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
        found.mismatches.append(Mismatch(path, format_value(value), describe(wanted)))


def _bind(name: str, value: Any, path: str, found: Match) -> None:
    """Bind a setting; one that several options share must have one value."""
    if name in found.settings and found.settings[name] != value:
        found.mismatches.append(Mismatch(path, format_value(value), format_value(found.settings[name])))
    found.settings.setdefault(name, value)
    found.paths.setdefault(name, path)


def _match_choice(wanted: Choice, value: Any, path: str, found: Match, open_defaults: list[OpenDefault]) -> None:
    """Match the first alternative that fits, or that which comes closest."""
    tried: list[list[Mismatch]] = []
    for chosen, template in wanted.options.items():
        made, defaults = Match(), list[OpenDefault]()
        _match(template, value, path, made, defaults)
        if not made.mismatches:
            _bind(wanted.name, chosen, path, found)
            for name, each in made.settings.items():
                _bind(name, each, made.paths[name], found)
            open_defaults += defaults
            return
        tried.append(made.mismatches)
    deeper = sorted((each for each in tried if each[0].path != path), key=_count)
    alternatives = " or ".join(dict.fromkeys(map(describe, wanted.options.values())))
    found.mismatches += deeper[0] if deeper else [Mismatch(path, format_value(value), alternatives)]


def _count(mismatches: list[Mismatch]) -> int:
    return len(mismatches)


def _match_class(
    wanted: Mapping[str, Any], value: Any, path: str, found: Match, open_defaults: list[OpenDefault]
) -> None:
    name = wanted["class_path"]
    if not isinstance(value, Mapping) or not _is_class(str(value.get("class_path")), name):
        shown = str(value["class_path"]).removeprefix(PACKAGE) if isinstance(value, Mapping) else format_value(value)
        found.mismatches.append(Mismatch(path, shown.rpartition(".")[2], name))
        return
    known, given = init_parameters(find_public(name)), value.get("init_args") or {}
    for option in dict.fromkeys((*wanted["init_args"], *given)):
        if option in wanted["init_args"]:
            template = wanted["init_args"][option]
        elif option in WITHOUT_EFFECT or option not in known:
            continue
        else:
            template = _convert_default(known[option].default)
        # A checkpoint lacks options that are newer than it.
        stated = given[option] if option in given else _convert_default(known[option].default)
        _match(template, stated, f"{path}.{option}", found, open_defaults)


def _is_class(path: str, name: str) -> bool:
    """Return whether a class path names the class of this package with this name."""
    return path == name or (path.startswith(PACKAGE) and path.rpartition(".")[2] == name)


def _convert_default(default: Any) -> Any:
    """Return the template of an option's default."""
    if inspect.isclass(default):
        return part(default.__name__)
    if isinstance(default, functools.partial):
        options = {name: _convert_default(each) for name, each in default.keywords.items()}
        return part(default.func.__name__, **options)
    return list(default) if isinstance(default, Sequence) and not isinstance(default, str) else default


def describe(template: Any) -> str:
    """Describe a template in a message."""
    if isinstance(template, Setting):
        return "any"
    if isinstance(template, Choice):
        return " or ".join(dict.fromkeys(map(describe, template.options.values())))
    if isinstance(template, Mapping) and "class_path" in template:
        return str(template["class_path"])
    if isinstance(template, list | tuple):
        return f"[{', '.join(map(describe, template))}]"
    return format_value(template)
