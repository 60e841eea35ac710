from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.layer_schedules import choose_by_layer
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.shifts.base import Shift, ShiftFactory
from lightning_xt.system.option_checks import check_slots


class ShiftCycle(Shift):
    """Alternate between shifts: layer 0 has the first, layer 1 the second, and after the last the first follows.

    In x-transformers: shift_tokens; as a list.

    Args:
        shifts: one shift per layer of the pattern; null = no shift.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, shifts: Sequence[ShiftFactory | None]) -> None:
        super().__init__()
        factory = choose_by_layer("shift: ShiftCycle", "shifts", shifts, shape)
        self.shift = None if factory is None else factory(shape)

    def forward(self, x: Float[Tensor, "b n D"], where: Where, cache: CallCache | None) -> Float[Tensor, "b n D"]:
        return x if self.shift is None else self.shift(x, where, cache)
