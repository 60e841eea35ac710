"""What each row has read and drawn so far, for filters to look at."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class History:
    """The tokens of each row before the one that is drawn next.

    Args:
        tokens: ids, prompt first; what stands at or after a row's length is no part of it.
        prompts: tokens of each row's prompt.
        lengths: tokens of each row so far, its prompt included.
        end: token with which a row ends. None = none.
    """

    tokens: Int[Tensor, "b m"]
    prompts: Int[Tensor, " b"]
    lengths: Int[Tensor, " b"]
    end: int | None = None

    @property
    def past(self) -> Bool[Tensor, "b m"]:
        """Which of the tokens each row has, prompt included."""
        return self._index < self.lengths[:, None]

    @property
    def drawn(self) -> Bool[Tensor, "b m"]:
        """Which of the tokens each row has drawn."""
        return self.past & (self._index >= self.prompts[:, None])

    @property
    def _index(self) -> Int[Tensor, "1 m"]:
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None]
