"""Checks of value mods that mix in the values of the first layer."""

from lightning_xt.core.shapes import AttentionShape


def check_layers(name: str, shape: AttentionShape) -> None:
    """Refuse a single layer, even if it is called several times, for its first call is not another layer."""
    if shape.depth == 1:
        raise ValueError(
            f"value_mods: {name} mixes the first layer's values into other layers, but there is one layer; raise "
            f"depth, or omit {name}"
        )


def follows_first(shape: AttentionShape) -> bool:
    """Return True if there are values of a first layer; recurrences before the first attention have none."""
    return shape.layer > 0 if shape.earlier_values is None else shape.earlier_values


def check_first(name: str, shape: AttentionShape, first: tuple[int, int]) -> None:
    """Refuse first values of other heads or of another width than a later layer has."""
    own = shape.kv_heads, shape.value_dim
    if follows_first(shape) and first != own:
        raise ValueError(
            f"value_mods: {name} mixes in the first layer's values, {first[0]} heads of width {first[1]}, but the "
            f"attention of layer {shape.layer} has {own[0]} of width {own[1]}; give both layers the same kv_heads, "
            "dim_head and value_dim"
        )
