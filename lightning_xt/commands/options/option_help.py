"""Help for the options of a command: what people change most, and the options of any class in the tree."""

import inspect
import re
import sys
import textwrap
from collections.abc import Collection, Sequence

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

import lightning_xt
from lightning_xt.commands.options.help_text import (
    WIDTH,
    Option,
    describe_action,
    describe_parameter,
    format_option,
    get_class,
    read_hint,
    wrap,
)
from lightning_xt.data.base import DataModule
from lightning_xt.system.discovery import find_variants, import_submodules, init_parameters
from lightning_xt.system.docstrings import get_docstring
from lightning_xt.system.imports import find
from lightning_xt.system.messages import UserError, explain_unknown

COMMON = (
    ("Run", ("config", "name", "ckpt_path", "init_from", "output", "print_config", "seed_everything")),
    ("Data", ("data", "data.path", "data.seq_len", "data.batch_size")),
    ("Model", ("model", "model.decoder.dim", "model.decoder.depth", "model.decoder.dropout",
               "model.decoder.attention.heads", "model.decoder.attention.position", "model.decoder.feedforward")),
    ("Training", ("model.optimizer", "model.optimizer.lr", "model.schedule.warmup_steps", "trainer.max_steps",
                  "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "validate_every", "checkpoint_every",
                  "keep_checkpoints")),
    ("Machine", ("trainer.accelerator", "trainer.devices", "trainer.precision", "trainer.strategy", "model.compile",
                 "data.num_workers")),
)  # fmt: skip
"""Options that people change most, by subject."""
FIRST = {"data": "TextFiles", "model": "LanguageModel"}
"""Classes whose options stand for those of their family until one is named."""
LINKED = {"vocab"}
"""Options of models that the data sets."""
WRAPPERS = "lightning.pytorch.core.optimizer"
"""Module in which Lightning makes a class for each optimizer that it wraps."""


class OptionHelp:
    """Help for the options of a command.

    Args:
        command: name of the command.
        summary: lines about the command.
        parser: the parser of all of its options.
        unused: options and sections that it refuses, of which its page is silent.
    """

    def __init__(self, command: str, summary: str, parser: ArgumentParser, unused: Collection[str] = ()) -> None:
        self._command, self._summary, self._parser, self._unused = command, summary, parser, unused
        self._actions = {each.dest: each for each in parser._actions if each.option_strings}

    def find_request(self, args: Sequence[str]) -> str | None:
        """Return the help that a command line asks for; None if it asks for none."""
        if "--help_all" in args:
            import_submodules(lightning_xt)
            return self._parser.format_help()
        for place, arg in enumerate(args):
            if arg in ("-h", "--help"):
                return self.describe_command()
            if match := re.fullmatch(r"--([\w.]+)\.help(?:=(.*))?", arg):
                following = args[place + 1 : place + 2]
                name = match[2] or (following[0] if following and not following[0].startswith("-") else None)
                return self.describe_option(match[1], name)
        return None

    def describe_command(self) -> str:
        """Return a page with the options that people change most, and where the others are described."""
        import_submodules(lightning_xt)
        lines = [f"usage: lightning-xt {self._command} -c FILE [-c FILE ...] [--OPTION VALUE ...]", "", self._summary]
        for title, names in COMMON:
            used = [name for name in names if name not in self._unused]
            found = [option for name in used if (option := self._find(name)) is not None]
            lines += ["", f"{title}:", *(line for each in found for line in format_option(each, short=True))]
        groups = dict.fromkeys(name.partition(".")[0] for name in self._actions if "." in name)
        slots = [name for name in ("model", "data", *groups) if name not in self._unused]
        lines += [
            "", "All options:",
            *(f"  lightning-xt {self._command} --{name}.help" for name in dict.fromkeys(slots)),
            f"  lightning-xt {self._command} --model.decoder.attention.position.help ALiBi   (any class, at any level)",
            f"  lightning-xt {self._command} --help_all",
        ]  # fmt: skip
        return "\n".join(lines)

    def describe_option(self, path: str, name: str | None) -> str:
        """Return the classes that an option takes and the options of one, or the options of a section.

        Args:
            path: name of the option without dashes.
            name: a class. None = the default.
        """
        import_submodules(lightning_xt)
        inner = [action for dest, action in self._actions.items() if dest.startswith(f"{path}.")]
        inner = [each for each in inner if not each.dest.endswith(".help")]
        if inner:
            found = [describe_action(each) for each in inner]
            return "\n".join([f"Options of --{path}:", *(line for each in found for line in format_option(each))])
        families, default, given = self._find_slot(path)
        if not families:
            option = self._find(path)
            return "" if option is None else "\n".join(format_option(option))
        variants = list_variants(families)
        chosen = default if name is None else _find_class(path, name, families, variants)
        lines = [] if name else [*_list_classes(path, families, variants, default), ""]
        return "\n".join([*lines, *_describe_class(path, chosen, given)]) if chosen is not None else "\n".join(lines)

    def _find(self, path: str) -> Option | None:
        """Find an option by its path; None if the command has none of this name."""
        if path in self._actions:
            _, default, _ = self._find_slot(path)
            option = describe_action(self._actions[path])
            return option if default is None else option._replace(default=default.__name__)
        outer, _, name = path.rpartition(".")
        if not outer:
            return None
        owner = _find_owner(name, *self._find_slot(outer))
        return None if owner is None or name not in init_parameters(owner) else describe_parameter(path, owner)

    def _find_slot(self, path: str) -> tuple[tuple[type, ...], type | None, int]:
        """Return the families of an option, its default class, and how many values its class is given.

        UserError if there is no such option.
        """
        head, *rest = [path] if path in self._actions else path.split(".")
        if head not in self._actions:
            raise UserError(explain_unknown("option", f"--{path}", (f"--{name}" for name in self._actions)))
        families, given = read_hint(getattr(self._actions[head], "_typehint", None))
        default = get_class(self._actions[head].default, list_variants(families))
        if head in FIRST:
            families = (LightningModule,) if head == "model" else (DataModule,)
            classes = {each.__name__: each for each in list_variants(families)}
            # A part of the other kind of model, such as its encoder.
            owners = [each for each in classes.values() if not rest or rest[0] in init_parameters(each)]
            default = classes[FIRST[head]] if classes[FIRST[head]] in owners or not owners else owners[0]
        for name in rest:
            owner = _find_owner(name, families, default, given)
            options = {} if owner is None else list_class_options(owner, given)
            if name not in options:
                kind = "a class" if default is None else default.__name__
                raise UserError(f"--{path}: {explain_unknown(f'option of {kind}', name, options)}")
            families, given = read_hint(options[name].annotation)
            default = get_class(options[name].default, list_variants(families))
        return families, default, given


def _find_owner(name: str, families: tuple[type, ...], default: type | None, given: int) -> type | None:
    """Return the class of a slot that has an option: the default, or one of the package, or any other."""
    known = [each for each in list_variants(families) if name in list_class_options(each, given)]
    known.sort(key=lambda each: (each is not default, not each.__module__.startswith("lightning_xt.")))
    return known[0] if known else default


def list_variants(families: tuple[type, ...]) -> list[type]:
    found = {each: None for family in families for each in (family, *find_variants(family))}
    public = [each for each in found if not inspect.isabstract(each) and not each.__name__.startswith("_")]
    # No config can name one that Lightning made.
    public = [each for each in public if each.__module__ != WRAPPERS or _is_importable(each)]
    # A base class does nothing by itself.
    return sorted((each for each in public if each not in families or len(public) == 1), key=lambda each: each.__name__)


def _is_importable(kind: type) -> bool:
    return getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind


def _find_class(path: str, name: str, families: tuple[type, ...], variants: Sequence[type]) -> type:
    """Return the class that a help text is asked for; UserError if there is none."""
    for each in variants:
        if each.__name__ == name or name in (f"{each.__module__}.{each.__qualname__}", f"lightning_xt.{each.__name__}"):
            return each
    if "." in name:
        try:
            found = find(name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"--{path}.help {name}: {error}") from error
        if inspect.isclass(found) and issubclass(found, families):
            return found
    family = families[0].__name__
    raise UserError(f"--{path}.help: {explain_unknown(f'{family} class', name, (each.__name__ for each in variants))}")


def _list_classes(path: str, families: tuple[type, ...], variants: Sequence[type], default: type | None) -> list[str]:
    """Return the classes that an option takes, with the first line of each docstring."""
    title = f"--{path} takes a {' or '.join(each.__name__ for each in families)} class"
    title += "" if default is None else f", by default {default.__name__}"
    rows = [Option("", each.__name__, "", get_docstring(each).short_description or "") for each in variants]
    lines = [line for each in rows for line in wrap(f"  {each.kind}", each.text)]
    return [f"{title}. Options of one: --{path}.help CLASS", "", *lines]


def _describe_class(path: str, kind: type, given: int) -> list[str]:
    """Return what a class is, and its options."""
    docstring = get_docstring(kind)
    own = kind.__module__.startswith("lightning_xt.")
    about = [docstring.short_description or "", (own and docstring.long_description) or ""]
    options = [describe_parameter(f"{path}.{name}", kind) for name in list_class_options(kind, given)]
    lines = [*textwrap.wrap(f"{kind.__name__}: {about[0]}", WIDTH), *textwrap.wrap(about[1], WIDTH)]
    shown = [line for each in options for line in format_option(each)]
    return [*lines, "", *(shown or ["No options."])]


def list_class_options(kind: type, given: int) -> dict[str, inspect.Parameter]:
    """Return the options of a class, its own before those of its bases, without what it is given when it is built."""
    found = list(init_parameters(kind).items())[given:]
    own = vars(kind).get("__init__")
    first = {} if own is None else inspect.signature(own).parameters
    return {name: each for name, each in sorted(found, key=lambda each: each[0] not in first) if name not in LINKED}
