"""Tokens in the order of their experts, in blocks of one expert each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def run_sorted(
    experts: Sequence[Callable[[Tensor], Tensor]], x: Float[Tensor, "t D"], chosen: Int[Tensor, "t k"]
) -> Float[Tensor, "t k D"]:
    """Run the chosen experts of each token, each over its tokens, whose number the host must know."""
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=len(experts)).tolist()
    parts = x[order // chosen.shape[1]].split(counts)
    made = torch.cat([each(part.unsqueeze(0)).squeeze(0) for each, part in zip(experts, parts, strict=True)])
    places = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    return made[places].unflatten(0, chosen.shape)


@dataclass(frozen=True, eq=False)
class ExpertBlocks:
    """Places of tokens in blocks, each of which belongs to one expert.

    The number of blocks depends on the number of tokens only, never on their experts, so that nothing waits for the
    device and one compiled program serves all.

    Args:
        owners: expert of each block.
        places: place of each token for each of its experts, counted over the rows of all blocks.
        rows: number of rows of a block.
    """

    owners: Int[Tensor, " blocks"]
    places: Int[Tensor, "t k"]
    rows: int

    @classmethod
    def sort(cls, chosen: Int[Tensor, "t k"], num_experts: int) -> "ExpertBlocks":
        """Assign tokens to blocks by their chosen experts."""
        flat = chosen.flatten()
        calls = len(flat)
        # Smaller blocks leave fewer rows empty, but each has a copy of its expert's weights.
        rows = max(1, calls // (2 * num_experts))
        order = flat.argsort(stable=True)
        counts = (flat[:, None] == torch.arange(num_experts, device=flat.device)).sum(dim=0)
        blocks = (counts + rows - 1) // rows
        ends = blocks.cumsum(dim=0)
        owned = flat[order]
        rank = torch.arange(calls, device=flat.device) - (counts.cumsum(dim=0) - counts)[owned]
        places = torch.empty_like(flat).scatter(0, order, (ends - blocks)[owned] * rows + rank)
        # Each expert leaves less than one block of rows empty.
        most = min(calls, calls // rows + num_experts)
        owners = torch.searchsorted(ends, torch.arange(most, device=flat.device), right=True)
        return cls(owners.clamp(max=num_experts - 1), places.view_as(chosen), rows)

    def spread(self, x: Float[Tensor, "t D"]) -> Float[Tensor, "blocks rows D"]:
        """Copy tokens to their places; other rows are zero."""
        empty = x.new_zeros(len(self.owners) * self.rows, x.shape[-1])
        copies = x.repeat_interleave(self.places.shape[1], dim=0)
        return empty.index_copy(0, self.places.flatten(), copies).unflatten(0, (-1, self.rows))

    def collect(self, out: Float[Tensor, "blocks rows D"]) -> Float[Tensor, "t k D"]:
        """Collect the rows of each token from their places."""
        return out.flatten(0, 1)[self.places]
