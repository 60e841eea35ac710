"""Keys and values besides those of tokens, which every query sees: learned ones, and those of another model."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.keys_values import KeysValues
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.value_mods.base import ValueMod


def make_memory(shape: AttentionShape, memory: int) -> nn.Parameter:
    """Make learned keys and values: (2 g m d), or (g m d+e) if their widths differ."""
    if shape.value_dim == shape.dim_head:
        return nn.Parameter(torch.randn(2, shape.kv_heads, memory, shape.dim_head))
    return nn.Parameter(torch.randn(shape.kv_heads, memory, shape.dim_head + shape.value_dim))


def prepend_memory(
    memory: Float[Tensor, "..."],
    shape: AttentionShape,
    position: Position | None,
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j e"],
    where: Where,
) -> tuple[Float[Tensor, "b g _ d"], Float[Tensor, "b g _ e"], Where]:
    """Prepend learned keys and values."""
    widths = (shape.dim_head, shape.value_dim)
    keys, values = memory.unbind() if memory.dim() == 4 else memory.split(widths, dim=-1)
    if position is not None and not position.rotates_alike:
        # Keys without a position, in the form of those with one.
        at = torch.zeros(1, keys.shape[-2], dtype=torch.long, device=keys.device)
        keys = position.rotate_keys(keys[None], at)[0]
    k, v = (
        torch.cat((own.to(each.dtype).expand(each.shape[0], -1, -1, -1), each), dim=-2)
        for own, each in ((keys, k), (values, v))
    )
    return k, v, where.add_memory(memory.shape[-2])


def prepend_given(
    shape: AttentionShape,
    per_head: bool,
    value_mods: Iterable[nn.Module],
    given: Sequence[KeysValues | None],
    k: Tensor,
    v: Tensor,
    where: Where,
) -> tuple[Tensor, Tensor, Where]:
    """Prepend keys and values of another model, if there are some for this layer.

    Raises:
        ValueError: the layer has no keys and values per head, or others in number or width, or a value mod that needs
            positive ones.
    """
    own = given[shape.layer] if shape.layer < len(given) else None
    if own is None:
        return k, v, where
    positive = [type(mod).__name__ for mod in value_mods if isinstance(mod, ValueMod) and mod.needs_positive]
    if positive:
        raise ValueError(
            f"value_mods: {positive[0]} gathers numbers above 0 only, but those of Inputs(keys_values=...) may be "
            "negative; omit one of them"
        )
    fits = all(
        a.dim() == 4 and (a.shape[0], a.shape[1], a.shape[3]) == (b.shape[0], b.shape[1], b.shape[3])
        for a, b in ((own.keys, k), (own.values, v))
    )
    if not per_head or not fits or own.keys.shape[2] != own.values.shape[2]:
        raise ValueError(
            f"Inputs(keys_values=...) has keys of shape {tuple(own.keys.shape)} and values of shape "
            f"{tuple(own.values.shape)} for layer {shape.layer}, whose own are {tuple(k.shape)} and {tuple(v.shape)}; "
            "rows, key/value heads and widths must be equal, of a projection with keys and values per head"
        )
    keys, values = (torch.cat((a.to(b.dtype), b), dim=-2) for a, b in ((own.keys, k), (own.values, v)))
    return keys, values, where.add_memory(own.keys.shape[2], own.mask)
