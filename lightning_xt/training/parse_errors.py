"""Messages of jsonargparse as one sentence with a way out."""

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

import lightning_xt
from lightning_xt.data.base import DataModule
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.methods.base import Method
from lightning_xt.system.discovery import find_variants, import_submodules, init_parameters
from lightning_xt.system.imports import imported
from lightning_xt.system.messages import UserError, explain_missing_value, explain_unknown, find_close_matches
from lightning_xt.system.renamed import explain_rename
from lightning_xt.system.shipped_configs import LISTED, explain_missing_config
from lightning_xt.training.optim.matrix_optimizer import MatrixOptimizer


def check_text(args: Sequence[str]) -> None:
    """Raise a UserError for an argument that is not UTF-8, which the parser could not write into a config."""
    for arg in args:
        try:
            arg.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = arg.encode("utf-8", "backslashreplace").decode()
            raise UserError(f"{shown} is not UTF-8; rename the file, or set the language of your terminal") from error


def explain_parse_error(message: str, options: Iterable[str]) -> str:
    """Return what is wrong and what to do, for a message of jsonargparse (nested, the outermost slot first)."""
    if sentence := explain_missing_value(message):
        return sentence
    import_submodules(lightning_xt)
    if match := re.match(r"unrecognized arguments: (-[^-\s])(\S+)", message):
        return f"unknown option {match[1] + match[2]!r}; give {match[1]} {match[2]}"
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        return (
            _explain_option(match[1].partition("=")[0], options)
            if match[1].startswith("-")
            else _explain_stray_word(match[1])
        )
    if match := re.search(r"File does not exist: '([^']*)'", message):
        return explain_missing_config(match[1])
    if match := re.search(r"arguments are required: ([\w.]+)", message):
        return _explain_required(match[1].rstrip("."), message)
    unknown = r"unrecognized arguments: --([\w.]+)\S*?(?:\. Got value: .*?class_path='([\w.]+)'|\n|$)"
    if match := re.search(unknown, message):
        return _explain_nested_option(match[1], message, match[2])
    number = r"Subtypes: \[<class '(float|int|bool)'>(?:(?!Subtypes).)*Expected a dot import path string: (\S+)"
    if match := re.search(number, message, re.DOTALL):
        return f"{_format_slots(message)}expected {match[1]}, not {match[2].rstrip('.')!r}"
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        return _explain_class(match[1].rstrip("."), message)
    if match := re.search(r"does not accept option '([^']+)'", message):
        return _explain_option(f"--{match[1]}", options)
    if match := re.search(r"Option '([^']+)' is not accepted", message):
        of_command = not _format_slots(message) and "class_path" not in message
        return _explain_option(f"--{match[1]}", options) if of_command else _explain_nested_option(match[1], message)
    return _explain_value(message)


def explain_failed_class(message: str) -> str | None:
    """Return why a class of a list cannot be built, for a message of jsonargparse; None for another message."""
    name = re.search(r"class_path='(?:\w+\.)*(\w+)'", message)
    if name is None or not message.startswith("Does not validate"):
        return None
    forms = (
        r"Expected a|Not a valid subclass|Subclass types expect|a class path|a dict with|Import path .* not correspond"
    )
    reasons = [line for line in _list_reasons(message) if not re.match(forms, line)]
    return f"{name[1]}: {' '.join(reasons)}" if reasons else None


def _explain_value(message: str) -> str:
    """Explain a value that its slot does not take."""
    subclass = (
        r"(?:Expected '|Import path )([\w.]*)'? ?(?:to be|does not correspond to) a subclass of (?:<class ')?(\w+)"
    )
    if match := re.search(subclass, message):
        values = re.findall(r"Given value: (?:NestedArg\(.*val=')?([^\n']*)", message)
        given = match[1] or (values[-1] if values else "the value")
        return f"{_format_slots(message)}{given} is not a subclass of {match[2]}; derive your class from it"
    if match := re.search(r"Expected '([\w.]+)' to be a function that returns <class '(\w+)'>", message):
        return (
            f"{_format_slots(message)}the function {match[1]} does not say that it returns a {match[2]}; annotate it, "
            f"as in def make(...) -> {match[2]}"
        )
    factory = r"expects a function or a callable class: "
    factory += r"(?:Unexpected.*?Got value: |Expected an import path.*? got )([^\n]*?)(?:\. |\n|$)"
    if match := re.search(factory, message, re.DOTALL):
        return f"{_format_slots(message)}expected a class or its options, not {match[1]!r}"
    if match := re.search(r"Expected an? (.+?)\. Got value: (.+?)(\. Got value|\n|$)", message):
        return f"{_format_slots(message)}expected {_format_kind(match[1], match[2])}, not {match[2]!r}"
    if match := re.search(r"(Import path|No module named|Unexpected import|Unable to import).*?(?=\. |\n|$)", message):
        return _format_slots(message) + match[0]
    if match := re.search(r"Subtypes: .*?Literal.*Given value: ([^\n]*)", message, re.DOTALL):
        choices = dict.fromkeys(re.findall(r"[\w.-]+", " ".join(re.findall(r"Literal\[([^\]]*)\]", message))))
        given = re.sub(r"^NestedArg\(key='[^']*', val='(.*)'\)$", r"\1", match[1])
        expected = f"one of {', '.join(map(repr, choices))}"
        if "Expected a <class 'int'>" in message:
            expected = f"a number or {', '.join(map(repr, choices))}"
        return f"{_format_slots(message)}expected {expected}, not {given!r}"
    classes = r"Errors:\n((?: *- Expected an? <class '[\w.]+'>\n)+).*\n *Given value: ([^\n]*?)(?:\. Got value|\n|$)"
    if match := re.search(classes, message):
        kinds = dict.fromkeys(re.findall(r"'([\w.]+)'", match[1]))
        expected = " or ".join(kind for kind in kinds if kind != "NoneType")
        return f"{_format_slots(message)}expected {expected}, not {match[2]!r}"
    return _format_slots(message) + _strip_frame(message)


def _explain_option(name: str, options: Iterable[str]) -> str:
    """Explain an unknown option, by the part before its first dot if that is unknown."""
    options = set(options)
    groups = {option.partition(".")[0] for option in options}
    known = name.partition(".")[0] in groups
    name = name if known else name.partition(".")[0]
    ends = {each for each in _list_tree(options) if each.rpartition(".")[2] == name.lstrip("-")}
    ends |= {each for each in options if each.startswith(f"{name}_")}
    if ends and name not in options:
        least = min(each.count(".") for each in ends)
        shallowest = sorted(each for each in ends if each.count(".") == least)[:3]
        return f"unknown option {name!r}; did you mean {' or '.join(shallowest)}?"
    if explain_rename(name, options):
        return explain_unknown("option", name, options)
    return explain_unknown("option", name, options if known else groups)


def _list_tree(options: set[str]) -> Iterator[str]:
    """Yield the options of a command, and those of the classes that it builds unless others are named."""
    yield from options
    for slot, family in (("--model", LightningModule), ("--data", DataModule)):
        for each in find_variants(family) if slot in options else ():
            yield from _list_defaults(each, slot)


def _list_defaults(kind: type, slot: str) -> Iterator[str]:
    for name, option in init_parameters(kind).items():
        yield f"{slot}.{name}"
        if inspect.isclass(option.default):
            yield from _list_defaults(option.default, f"{slot}.{name}")


def _explain_stray_word(word: str) -> str:
    return (
        f"{word!r} stands where an option was expected; options begin with --, such as --trainer.max_steps 20, and a "
        "RUN comes first"
    )


def _explain_required(name: str, message: str) -> str:
    name = re.sub(r"^(fit|validate|test|predict)\.", "", name)
    if name == "data":
        return f"there is no data: give -c language/quickstart.yaml, or --data TextFiles --data.path FILE; {LISTED}"
    slots = "".join(f"{slot}." for slot in _find_slots(message))
    return f"--{slots}{name} is required; give it in a config or on the command line"


def _explain_class(name: str, message: str) -> str:
    slots = _find_slots(message)
    family = _find_family(slots[-1].rpartition(".")[2]) if slots else None
    # A family without variants is a class itself, such as Figures.
    known = set() if family is None else {each.__name__ for each in [*find_variants(family)] or [family]}
    if name in known:
        return f"{_format_slots(message)}{name} is for another model; omit it, or choose another --model"
    close = find_close_matches(name, known)
    own = "" if close else "; name a class of your own by its import path, package.Class"
    what = "class" if family is None else f"{family.__name__} class"
    return f"{_format_slots(message)}{explain_unknown(what, name, known)}{own}"


def _explain_nested_option(name: str, message: str, kind: str | None = None) -> str:
    """Explain an unknown option of a class: of `kind`, or else of the innermost class that the message names."""
    name, _, rest = name.rstrip(".").partition(".")
    named = re.findall(r"Problem with given class_path '([\w.]+)'", message)
    named += re.findall(r"is not accepted\. Got value: Namespace\(.*?class_path='([\w.]+)'", message)
    named += [] if kind is None else [kind]
    if not named or (found := imported(named[-1])) is None:
        listed = "--model.help CLASS and --data.help CLASS list a class's options"
        return f"{_format_slots(message)}unknown option {name!r}; {listed}"
    slots = _format_slots(message).removesuffix(": ") or "--model"
    deeper = [each for each in _list_defaults(found, slots) if each.rpartition(".")[2] == name]
    if deeper and not explain_rename(name, init_parameters(found)):
        nearest = sorted(deeper, key=lambda each: (each.count("."), each))[:3]
        offers = [f"{each}.{rest}" if rest else each for each in nearest]
        return (
            f"{_format_slots(message)}unknown option of {found.__name__} {name!r}; did you mean {' or '.join(offers)}?"
        )
    sentence = explain_class_option(name, found)
    owners = [each for each in find_variants(DataModule) if name in init_parameters(each)]
    if "did you mean" in sentence:
        # Its relatives only: others serve what another kind of model reads.
        kinds = tuple(kind for kind in found.__mro__ if issubclass(kind, DataModule) and kind is not DataModule)
        owners = [each for each in owners if issubclass(each, kinds)]
    # Its relatives before those that serve something else.
    owners.sort(key=lambda each: (each.__base__ is not found.__base__, each.__name__))
    listed = " or ".join(f"--data {each.__name__}" for each in owners)
    other = f"; for --data.{name} give {listed}" if _find_slots(message) == ["data"] and owners else ""
    return f"{_format_slots(message)}{sentence}{other}"


def explain_class_option(name: str, found: Callable[..., Any]) -> str:
    """Return a sentence about an unknown option of a class, or of a function that makes its objects."""
    known = set(init_parameters(found) if inspect.isclass(found) else inspect.signature(found).parameters)
    known -= {"self", "args", "kwargs", "shape", "params"}
    sentence = explain_unknown(f"option of {found.__name__}", name, known)
    return sentence if known else f"{sentence}; it has no options"


def _find_slots(message: str) -> list[str]:
    """Return the slots from the outermost to the wrong one, such as model, decoder, attention, position."""
    return re.findall(r'Parser key "([\w.]+)"', message)


def _format_slots(message: str) -> str:
    slots = _find_slots(message)
    return f"--{'.'.join(slots)}: " if slots else ""


def _find_family(slot: str) -> type | None:
    """Return the base class of a slot's values, which is the same for all slots of one name."""
    families: dict[str, type] = {"model": LightningModule, "data": DataModule, "filters": Filter, "method": Method}
    families |= {"callbacks": Callback, "logger": Logger, "profiler": Profiler, "strategy": Strategy}
    if slot in families:
        return families[slot]
    # A callback whose options stand at the top of a config is the slot of its name.
    for callback in find_variants(Callback):
        if callback.__name__.lower() == slot.replace("_", ""):
            return callback
    for owner in _list_components():
        try:
            kind = typing.get_type_hints(owner.__init__).get(slot)  # type: ignore[misc]
        except (NameError, TypeError):
            continue
        if (family := _find_product(kind)) is not None:
            return family
    return None


def _find_product(kind: object) -> type | None:
    """Return the class that a factory type builds, inside unions and sequences too."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Callable and isinstance(arguments[-1], type):
        return arguments[-1]
    found = (_find_product(argument) for argument in arguments if not isinstance(argument, list))
    return next((family for family in found if family is not None), None)


def _list_components() -> Iterator[type]:
    # Every part that has slots is a module of torch or of data, or an optimizer.
    kinds = chain(find_variants(torch.nn.Module), find_variants(DataModule), find_variants(MatrixOptimizer))
    return (each for each in kinds if each.__module__.startswith("lightning_xt."))


def _format_kind(text: str, value: str = "...") -> str:
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text).replace("collections.abc.Sequence", f"a list, such as [{value}]")
    return re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", text)


def _strip_frame(message: str) -> str:
    """Return a message of another form without its repetitions and frame."""
    return _format_kind(" ".join(_list_reasons(message)) or " ".join(message.split()))[:400]


def _list_reasons(message: str) -> list[str]:
    noise = (
        "Parser key", "Does not validate", "Subtypes:", "Errors:", "Given value", "Problem with given class_path",
        "Expected a <class 'NoneType'>", "Expected a path but",
    )  # fmt: skip
    lines = [line.strip().removeprefix("- ").strip() for line in message.splitlines()]
    return [line for line in lines if line and not line.startswith(noise)]
