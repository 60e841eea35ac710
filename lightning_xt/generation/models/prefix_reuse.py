"""A model that reads a growing text once, however often it is given the text from its start."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.wrapper import ModelWrapper
from lightning_xt.generation.protocol import Autoregressive, DecodingCache

ROOM = 4096
"""Tokens that a memory has room for at first, so that a text can grow."""


class PrefixReuse(ModelWrapper):
    """Keeps the memory of one text from one decoding to the next, and reads only what is not in it.

    It keeps the protocol of a model, so every method of decoding that does not reread works with it.

    Args:
        model: what reads.
    """

    def __init__(self, model: Autoregressive) -> None:
        super().__init__(model)
        self.read = 0
        """Tokens that the model was given so far."""
        self._memory: DecodingCache | None = None
        self._asked: tuple[int, int, int | None] | None = None
        """What the memory was asked for, the room in it apart."""
        self._room = 0
        self._segments: list[tuple[int, Tensor]] = []
        """What was put into it: at which place, and the ids."""
        self._whole = True
        """Whether every forward has come to its end, over one row."""
        self._next: Sequence[int] = ()
        self._known = 0
        """Tokens at the start of the next forward that the memory holds."""

    def expect(self, text: Sequence[int]) -> None:
        """Says which text is decoded next.

        Args:
            text: ids from its start, more than none.
        """
        self._next = text

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> DecodingCache:
        """The memory of what was read before, where that is of use; else an empty one.

        Args:
            batch: rows; what several of them read is not kept.
            capacity: most tokens a row will hold.
            slack: as of the model.
            window: as of the model.
        """
        asked = (batch, slack, window)
        fits = self._whole and asked == self._asked and capacity <= self._room
        if self._memory is not None and fits and (known := self._taken_back(self._memory)) is not None:
            self._known = known
            return self._memory
        self._room = max(ROOM, 2 * capacity) if batch == 1 else capacity
        self._memory = self.model.new_cache(batch, self._room, slack=slack, window=window)
        self._asked, self._segments, self._whole, self._known = asked, [], True, 0
        return self._memory

    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]:
        """Scores of the token after each of those that were not read before; arguments as of the model."""
        if self._known:
            tokens = tokens[:, self._known :]
            lengths = None if lengths is None else lengths - self._known
        self._known = 0
        # False for good where the forward is interrupted.
        whole, self._whole = self._whole and tokens.shape[0] == 1, False
        at = 0 if cache is None else cache.bound
        logits = self.model(tokens, lengths=lengths, inputs=inputs, cache=cache, last_only=last_only)
        self._segments.append((at, tokens[0]))
        self.read += tokens.shape[1]
        self._whole = whole and cache is self._memory
        return logits

    def _taken_back(self, memory: DecodingCache) -> int | None:
        """Has the memory hold only what the next text begins with, and says how much; None where it cannot."""
        held = self._held()[: memory.bound]
        # Something must be read for there to be scores.
        most = min(len(held), len(self._next) - 1)
        same = next((n for n in range(most) if held[n] != self._next[n]), most)
        if same < memory.bound:
            try:
                memory.truncate(same)
            except ValueError:
                # A window or a running state that does not go back so far.
                return None
        return same

    def _held(self) -> list[int]:
        """The ids that were put into the memory, later ones in the place of earlier ones."""
        held: list[int] = []
        for at, ids in self._segments:
            held = [*held[:at], *ids.tolist()]
        self._segments = [(0, torch.tensor(held, dtype=torch.long))]
        return held
