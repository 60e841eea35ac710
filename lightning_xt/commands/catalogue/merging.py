"""Options of two variants in one model, as a config spells them."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from inspect import Parameter
from typing import Any, NamedTuple

from lightning_xt.commands.catalogue.families import find_families, find_made, get_hints, list_members
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.public_names import find_public


def merge(first: Mapping[str, Any], second: Mapping[str, Any], owner: type | None = None) -> dict[str, Any]:
    """Return options with others on top of them; other than in configs, lists of classes are joined, each class once.

    Two classes of one option are both kept if one holds the other, as Cycle holds Attention, or if their family has a
    class that holds several; else the second replaces the first. The defaults of the owner, the class that has the
    options, count as chosen.
    """
    merged, known = dict(first), {} if owner is None else init_parameters(owner)
    for name, value in second.items():
        before = merged.get(name)
        if isinstance(before, list) and isinstance(value, list):
            value = join_lists(before, value)
        elif None not in (before, value) and (isinstance(before, Mapping) or isinstance(value, Mapping)):
            default = known[name].default if name in known else None
            one, two = Choice.read(before, default), Choice.read(value, default)
            value = (one.join(two) or one.hold(two) or two.hold(one, below=True) or one.line_up(two) or two).write()
        merged[name] = value
    return merged


def join_lists(first: list[Any], second: list[Any]) -> list[Any]:
    """Return the classes of two lists, each once; of other lists, such as of numbers, the second replaces the first."""
    if not names_parts(first) or not names_parts(second):
        return second
    return first + [each for each in second if each not in first]


def names_parts(value: list[Any]) -> bool:
    """Return True for a list of classes or options, False for one of numbers."""
    return all(isinstance(each, str | Mapping) for each in value)


def list_named(value: Any) -> Iterator[str]:
    """Yield the words of options among which the names of all chosen classes are."""
    if isinstance(value, str):
        yield value.rpartition(".")[2]
    elif isinstance(value, list | Mapping):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from list_named(each)


class Choice(NamedTuple):
    """Class of an option, with its options.

    Args:
        kind: the class. None = unknown.
        named: True if the config names the class, False if it is a default.
        options: its options.
    """

    kind: type | None
    named: bool
    options: Mapping[str, Any]

    @classmethod
    def read(cls, value: Any, default: Any = None) -> "Choice":
        """Read a name, a class with options, or options without a class."""
        if isinstance(value, str):
            return cls(find_public(value.rpartition(".")[2]), True, {})
        if "class_path" in value:
            return cls(find_public(value["class_path"].rpartition(".")[2]), True, value.get("init_args") or {})
        return cls(default if inspect.isclass(default) else None, False, value)

    def write(self) -> dict[str, Any]:
        """Return the choice as a config spells it."""
        if self.kind is None or not self.named:
            return dict(self.options)
        return {"class_path": self.kind.__name__, **({"init_args": dict(self.options)} if self.options else {})}

    def join(self, other: "Choice") -> "Choice | None":
        """Return one class with the options of both; None if they are of two classes."""
        named = self if self.named else other
        if self.named and other.named and self.kind is not other.kind:
            return None
        # Options without a class are those of a default, which may have others.
        known = named.options if named.kind is None else init_parameters(named.kind)
        if named.named and any(name not in known for each in (self, other) for name in each.options):
            return None
        return Choice(named.kind, named.named, merge(self.options, other.options, named.kind))

    def hold(self, other: "Choice", below: bool = False) -> "Choice | None":
        """Return this class with another choice in the parts of its family that it holds; None if none takes it.

        Args:
            other: the choice.
            below: True if the parts' own options stay on top.
        """
        option = None if self.kind is None else find_holding(self.kind)
        if self.kind is None or option is None or other.kind is self.kind:
            return None
        held = self.options.get(option, init_parameters(self.kind)[option].default)
        if isinstance(held, list):
            joined = [_join(each, other, below) for each in held]
            held = [new or old for new, old in zip(joined, held, strict=True)] if any(joined) else None
        elif held is Parameter.empty:
            return None
        else:
            held = _join(held.__name__ if inspect.isclass(held) else held, other, below) or other.write()
        return None if held is None else Choice(self.kind, True, {**self.options, option: held})

    def line_up(self, other: "Choice") -> "Choice | None":
        """Return the class of the family that holds several parts, with both; None if there is none."""
        if self.kind is None or other.kind is None or self.kind is other.kind:
            return None
        holder = find_list_holder(self.kind, other.kind)
        if holder is None:
            return None
        parts = [each._replace(named=True).write() for each in (self, other)]
        return Choice(holder, True, {str(find_holding(holder)): parts})


def _join(held: Any, other: Choice, below: bool) -> dict[str, Any] | None:
    """Return a held part with another choice; None if there is no part, or another class."""
    if held is None:
        return None
    own = Choice.read(held)
    joined = other.join(own) if below else own.join(other)
    return None if joined is None or joined.kind is not own.kind else joined.write()


@functools.cache
def find_holding(kind: type) -> str | None:
    """Return the option by which a class holds one or more parts of the same family. None = there is none."""
    hints = get_hints(kind)
    return next(
        (name for name in init_parameters(kind) if any(_share_family(kind, m) for m in _made(hints, name))), None
    )


def _made(hints: Mapping[str, Any], name: str) -> list[type]:
    return list(find_made(hints.get(name)))


@functools.cache
def _share_family(kind: type, made: type) -> bool:
    return any(issubclass(kind, base) and issubclass(made, base) for base in find_families("nn").values())


@functools.cache
def find_list_holder(*kinds: type) -> type | None:
    """Return the class of a family that holds a list of its parts, such as Cycle. None = there is none."""
    bases = [base for base in find_families("nn").values() if all(issubclass(kind, base) for kind in kinds)]
    for base in bases:
        for kind in list_members(base):
            option = find_holding(kind)
            if option is not None and "Sequence" in str(get_hints(kind)[option]):
                return kind
    return None
