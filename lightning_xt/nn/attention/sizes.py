"""Sizes of attention, with defaults filled in, and checks of its numbers."""

from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.system.option_checks import check_option


def build_attention_shape(
    shape: LayerShape, heads: int, kv_heads: int | None, dim_head: int | None, value_dim: int | None
) -> AttentionShape:
    """Build sizes of attention, with defaults filled in; ValueError if dim, heads and kv_heads do not divide."""
    check_option("attention", "heads", heads, least=1)
    check_option("attention", "value_dim", value_dim, least=1)
    width = max(1, shape.dim // heads) if dim_head is None else dim_head
    kv_heads = heads if kv_heads is None else kv_heads
    found = AttentionShape(**vars(shape), heads=heads, kv_heads=kv_heads, dim_head=width, value_dim=value_dim or width)
    if dim_head is None and shape.dim % heads:
        raise ValueError(
            f"attention: dim ({shape.dim}) must be a multiple of heads ({heads}), or dim_head must be given"
        )
    return found


def check_sizes(shape: AttentionShape, window: int | None, memory: int, dropout: float, z_loss: float) -> None:
    """Refuse options out of range by a ValueError."""
    check_option("attention", "window", window, least=1)
    if window is not None and shape.context_dim is not None:
        raise ValueError(f"attention: window is {window}, but cross-attention has no distances; set it to null")
    check_option("attention", "memory", memory, least=0)
    check_option("attention", "dropout", dropout, least=0, below=1)
    check_option("attention", "z_loss", z_loss, least=0)
