"""Rows with padding anywhere, as `transformers` has them, and padded on the right, as the networks here have them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RightPadded:
    """Tokens of rows with all padding moved to the right.

    Args:
        tokens: the ids.
        lengths: number of real tokens of each row. None = all are real.
        ranks: for each place of the original row, the new place of its token, or of the last real one before padding.
    """

    tokens: Int[Tensor, "b n"]
    lengths: Int[Tensor, " b"] | None
    ranks: Int[Tensor, "b n"] | None

    def restore(self, logits: Float[Tensor, "b n v"]) -> Float[Tensor, "b n v"]:
        """Put the logits of tokens where the tokens stood."""
        if self.ranks is None:
            return logits
        return logits.gather(1, self.ranks[..., None].expand(-1, -1, logits.shape[-1]))


def move_padding(tokens: Int[Tensor, "b n"], mask: Tensor | None, name: str) -> RightPadded:
    """Move padding to the right.

    Args:
        tokens: ids, in the last columns of the mask.
        mask: 1 or True for real tokens, of these and earlier columns. None = all are real.
        name: name of the mask, for messages.

    Raises:
        ValueError: the mask is of another shape, or a row has no real token.
    """
    if mask is None:
        return RightPadded(tokens, None, None)
    if mask.dim() != 2 or len(mask) != len(tokens) or mask.shape[1] < tokens.shape[1]:
        raise ValueError(
            f"{name} has the shape {tuple(mask.shape)}, but the ids have {tuple(tokens.shape)}; give one number for "
            "each id, 1 for a real one and 0 for padding"
        )
    real: Bool[Tensor, "b n"] = mask[:, mask.shape[1] - tokens.shape[1] :].to(tokens.device) != 0
    if bool(real.all()):
        return RightPadded(tokens, None, None)
    lengths = real.sum(dim=1)
    if bool((lengths == 0).any()):
        raise ValueError(f"{name} is 0 in a whole row, number {int(lengths.argmin())}; give each row a real token")
    order = torch.argsort(~real, dim=1, stable=True)
    return RightPadded(tokens.gather(1, order), lengths, (real.cumsum(dim=1) - 1).clamp(min=0))
