"""Tokens of each row so far, for filters."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class History:
    """Tokens of each row before the next one.

    Args:
        tokens: ids, prompt first; values at or after a row's length are meaningless.
        prompts: tokens of each row's prompt.
        lengths: tokens of each row so far, prompt included.
        end: end token. None = there is none.
        control: further ids that stand for no text, such as pad and start.
    """

    tokens: Int[Tensor, "b t"]
    prompts: Int[Tensor, " b"]
    lengths: Int[Tensor, " b"]
    end: int | None = None
    control: Sequence[int] = ()

    @property
    def past(self) -> Bool[Tensor, "b t"]:
        """True for every token of a row, prompt included."""
        return self._index < self.lengths[:, None]

    @property
    def generated(self) -> Bool[Tensor, "b t"]:
        """True for the tokens that a row has generated."""
        return self.past & (self._index >= self.prompts[:, None])

    @property
    def text(self) -> Bool[Tensor, "b t"]:
        """True for every token that stands for text, meaningless ones included: neither the end nor a control id."""
        found = torch.ones_like(self.tokens, dtype=torch.bool)
        for token in (self.end, *self.control):
            if token is not None:
                found &= self.tokens != token
        return found

    @property
    def _index(self) -> Int[Tensor, "1 t"]:
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None]
