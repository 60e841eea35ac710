"""Checks of options: their names and ranges."""

import inspect
import typing
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

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


def refuse_names(init: Callable[P, T]) -> Callable[P, T]:
    """Have a constructor raise a ValueError for a name in a slot, such as `position="ALiBi"`, which only YAML takes."""
    parameters = inspect.signature(init).parameters.values()
    slots = {each.name for each in parameters if _takes_factory(each.annotation)}

    @wraps(init)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        for slot in slots & options.keys():
            value = options[slot]
            for name in value if isinstance(value, list | tuple) else [value]:
                if isinstance(name, str):
                    raise ValueError(
                        f"{slot} has the name {name!r}; from Python pass the class {name} itself, or "
                        f"partial({name}, ...) for other options"
                    )
        return init(*args, **options)

    return checked


def _takes_factory(hint: object) -> bool:
    """Return True for the annotation of a slot: a factory, an optional one, or several."""
    return typing.get_origin(hint) is Callable or any(map(_takes_factory, typing.get_args(hint)))


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
