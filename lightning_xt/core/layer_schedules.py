"""Options of a part that differ from layer to layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lightning_xt.core.shapes import LayerShape
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.messages import explain_unknown

T = TypeVar("T")

OptionSchedule = Mapping[str, Sequence[int | float | None]]
"""By option, either a value for each layer, or two: the first layer's and the last's, of a straight line."""


def schedule_options(
    where: str, recipe: Callable[..., Any], options: OptionSchedule, multiple: int, shape: LayerShape
) -> dict[str, int | float | None]:
    """Return the options of a layer.

    Args:
        where: slot and class, for messages.
        recipe: class whose options they are, perhaps with other options.
        options: values over depth.
        multiple: number to whose multiples whole numbers on a straight line are rounded; those above 0 to at least one.
        shape: sizes of the layer.

    Raises:
        ValueError: the recipe has no such option, or there are neither two values nor as many as layers.
    """
    kind = next((each for each in (recipe, *getattr(recipe, "args", ())) if isinstance(each, type)), None)
    kind = getattr(recipe, "func", None) if kind is None else kind
    known = init_parameters(kind).keys() - {"shape"} if isinstance(kind, type) else options.keys()
    found: dict[str, int | float | None] = {}
    for name, values in options.items():
        if name not in known:
            raise ValueError(f"{where}: {explain_unknown('option', name, known)}")
        if len(values) == shape.depth:
            found[name] = values[shape.layer]
            continue
        first, *others = values or (None,)
        if len(others) != 1 or first is None or others[0] is None:
            raise ValueError(
                f"{where} has {name} {list(values)}, which must be two numbers, for the first and the last layer, or "
                f"one value for each of the {shape.depth} layer(s)"
            )
        found[name] = _interpolate(first, others[0], multiple, shape)
    return found


def choose_by_layer(where: str, name: str, choices: Sequence[T], shape: LayerShape) -> T:
    """Return a layer's choice of a pattern: layer 0 has the first, and after the last the first follows.

    Args:
        where: slot and class, for messages.
        name: name of the choices.
        choices: pattern over depth.
        shape: sizes of the layer.

    Raises:
        ValueError: there are no choices, or more than layers.
    """
    if not choices:
        raise ValueError(f"{where} has an empty list of {name}; give at least one")
    if len(choices) > shape.depth:
        raise ValueError(
            f"{where} has {len(choices)} {name}, but there are only {shape.depth} layer(s); remove {name}, or raise "
            "depth"
        )
    return choices[shape.layer % len(choices)]


def _interpolate(first: int | float, last: int | float, multiple: int, shape: LayerShape) -> int | float:
    value = first + (last - first) * shape.layer / max(1, shape.depth - 1)
    if isinstance(first, float) or isinstance(last, float):
        return value
    # Halves are rounded up; a number above 0 never becomes 0.
    return max(int(value > 0), math.floor(value / multiple + 0.5)) * multiple
