"""Checks of options: their names and ranges."""

import inspect
import typing
from collections.abc import Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

import torch

from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.messages import explain_unknown

P = ParamSpec("P")
T = TypeVar("T")


def refuse_unknown(*kinds: type) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have a function raise a TypeError that offers the right name for an option unknown to it and to some classes."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        own = {name for name, each in inspect.signature(call).parameters.items() if each.kind is not each.VAR_KEYWORD}
        known = own.union(*map(init_parameters, kinds)) - {"self"}

        @wraps(call)
        def checked(*args: P.args, **options: P.kwargs) -> T:
            for name in options.keys() - known:
                raise TypeError(f"{call.__name__}: {explain_unknown('option', name, known)}")
            return call(*args, **options)

        return checked

    return decorate


def check_slots(init: Callable[P, T]) -> Callable[P, T]:
    """Have a constructor raise a ValueError for a value in a slot that builds no part of its family.

    Such as the name of a class, `position="ALiBi"`, which only YAML takes, a part that is built already, or a class of
    another family.
    """
    parameters = inspect.signature(init).parameters.values()
    names = [each.name for each in parameters]
    slots = {each.name: families for each in parameters if (families := _list_families(each.annotation))}

    @wraps(init)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        given = {**dict(zip(names, args, strict=False)), **options}
        for slot in slots.keys() & given.keys():
            value = given[slot]
            for each in value if isinstance(value, list | tuple) else [value]:
                if each is not None:
                    check_factory(slot, each, slots[slot])
        return init(*args, **options)

    return checked


def check_factory(slot: str, value: object, families: tuple[type, ...]) -> None:
    """Raise a ValueError unless a value is a function, or a class of one of the families, perhaps with options."""
    if isinstance(value, str):
        raise ValueError(
            f"{slot} has the name {value!r}; from Python pass the class {value} itself, or "
            f"partial({value}, ...) for other options"
        )
    if not callable(value) or isinstance(value, torch.nn.Module):
        raise ValueError(
            f"{slot} is an object of {type(value).__name__}; pass the class that builds it, or partial(Class, ...) "
            "for other options"
        )
    built = value.func if isinstance(value, partial) else value
    if isinstance(built, type) and not issubclass(built, families):
        names = " or ".join(each.__name__ for each in families)
        raise ValueError(
            f"{slot} is {built.__name__}, which is not a subclass of {names}; derive your class from "
            f"{families[0].__module__}.{families[0].__name__}"
        )


def _list_families(hint: object) -> tuple[type, ...]:
    """Return the classes that the factories of a slot's annotation build; none if it is not a slot."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Callable:
        return (arguments[-1],) if isinstance(arguments[-1], type) else ()
    return tuple(family for each in arguments for family in _list_families(each))


def check_option(
    where: str,
    name: str,
    value: int | float | None,
    *,
    least: int | float | None = None,
    most: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
) -> None:
    """Refuse a number outside the range of an option.

    Args:
        where: slot and class of the option, such as "position: Rotary".
        name: name of the option.
        value: its value; None is not checked.
        least: smallest valid value. None = no limit.
        most: largest valid value. None = no limit.
        above: largest value that is too small. None = no limit.
        below: smallest value that is too large. None = no limit.

    Raises:
        ValueError: the value is outside the range.
    """
    if value is None:
        return
    rules = []
    if least is not None and most is not None:
        rules.append((least <= value <= most, f"from {least} to {most}"))
    elif least is not None:
        rules.append((value >= least, f"at least {least}"))
    if above is not None:
        rules.append((value > above, f"above {above}"))
    if most is not None and least is None:
        rules.append((value <= most, f"at most {most}"))
    if below is not None:
        rules.append((value < below, f"below {below}"))
    if not all(kept for kept, _ in rules):
        raise ValueError(f"{where} has {name} {value}, which must be {' and '.join(rule for _, rule in rules)}")
