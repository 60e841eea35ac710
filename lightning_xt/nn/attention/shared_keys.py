"""Keys and values of one layer that later layers read."""

from torch import Tensor

from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where


def read_shared_keys(trace: Trace, window: int | None) -> tuple[Tensor, Tensor, Where]:
    """Return the shared keys and values with their positions; ValueError for another window than their layer has."""
    shared = trace.shared_keys
    if shared is None:
        raise ValueError("projection: no layer before this one shares its keys; give it to a layer before, too")
    if shared.window != window:
        raise ValueError(
            f"attention: window is {window}, but this layer reads shared keys of a layer with window {shared.window}; "
            "give both the same window"
        )
    return shared.keys, shared.values, shared.where
