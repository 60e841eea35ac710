"""Rows that share one context in cross-attention, such as the beams of one source."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.fixed_context import FixedContext
from lightning_xt.core.where import Where


def group_queries(q: Float[Tensor, "b h n d"], contexts: int) -> Float[Tensor, "contexts h _ d"]:
    """Group the queries of rows with the same context into the queries of one row a context."""
    rows = q.shape[0] // contexts
    if rows == 1:
        return q
    return q.view(contexts, rows, *q.shape[1:]).transpose(1, 2).flatten(2, 3)


def ungroup_queries(out: Float[Tensor, "contexts h _ e"], rows: int) -> Float[Tensor, "b h n e"]:
    """Return what grouped queries gather to their rows."""
    return out.unflatten(2, (rows // out.shape[0], -1)).transpose(1, 2).flatten(0, 1)


def look_at_context(where: Where, context: FixedContext, sharing: int) -> Where:
    """Replace the keys by those of a context, each row of which `sharing` rows share."""
    across = where.switch_to_context(context.keys.shape[-2], None)
    return replace(across.group_rows(sharing) if sharing > 1 else across, valid=context.mask)
