"""Options with one value for each layer, as a tuple."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_xt.commands.x_transformers.given_options import Given, Remarks, make_class
from lightning_xt.commands.x_transformers.layout_parts import Order


@dataclass(frozen=True)
class PartOptions:
    """Options of the sublayers of one kind.

    Args:
        owner: their constructor.
        values: values by option; a tuple of as many as there are sublayers has one for each.
        count: number of the sublayers.
        remarks: where remarks are added.
        prefix: prefix of the options, as typed.
        places: where the text gives each option.
        inherited: values of other sublayers that count where these have none.
    """

    owner: str
    values: Mapping[str, Any]
    count: int
    remarks: Remarks
    prefix: str
    places: Mapping[str, str]
    inherited: Mapping[str, Any] = field(default_factory=dict)

    def select(self, number: int) -> Given:
        """Return the options of one sublayer."""
        values = {name: value[number] if self._is_listed(value) else value for name, value in self.values.items()}
        return Given(self.owner, values, self.remarks, self.prefix, self.places, self.inherited)

    def complete(self) -> list[dict[str, Any]]:
        """Return the options of every sublayer, at their defaults there where they are not given."""
        return [self.select(number).complete() for number in range(self.count)]

    @property
    def listed(self) -> list[str]:
        """Options that differ between the sublayers."""
        return [name for name, value in self.values.items() if self._is_listed(value) and len(set(value)) > 1]

    @property
    def common(self) -> dict[str, Any]:
        """Values that all sublayers share."""
        return {name: value for name, value in self.values.items() if not self._is_listed(value)}

    def _is_listed(self, value: Any) -> bool:
        return isinstance(value, tuple) and len(value) == self.count > 0


def build_by_layer(part: PartOptions, order: Order, cycle: str, build: Callable[[Given], Any]) -> Any:
    """Return the sublayer of all layers, alternating if it differs between them.

    Args:
        part: options of the sublayers.
        order: their order.
        cycle: class that alternates.
        build: makes a sublayer from its options.
    """
    if not part.listed:
        return build(part.select(0))
    if not order.regular or part.count != order.depth:
        for option in part.listed:
            reason = f"{cycle} alternates between whole layers; the first value is taken"
            part.remarks.miss(part.prefix + option, part.values[option], reason)
        return build(part.select(0))
    recipes = [build(part.select(number)) for number in range(part.count)]
    period = next(
        n for n in range(1, len(recipes) + 1) if all(a == b for a, b in zip(recipes, recipes[n:], strict=False))
    )
    return recipes[0] if period == 1 else make_class(cycle, recipes=recipes[:period])
