"""Prefix reuse: a growing sequence is run once, however often it is given from its start."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.model_wrapper import ModelWrapper
from lightning_xt.generation.protocol import Autoregressive, DecodingCache

INITIAL_CAPACITY = 4096
"""Tokens that a new cache has room for, so that a sequence can grow."""


class PrefixReuse(ModelWrapper):
    """Model that keeps the cache of one sequence between decodings, and runs only over tokens after the shared prefix.

    It keeps the protocol of a model, so every method that does not reread the prefix works with it. Sequences with
    inputs besides their tokens are run as a whole.
    """

    def __init__(self, model: Autoregressive) -> None:
        super().__init__(model)
        self.tokens_run = 0
        """Tokens that the model has run over so far."""
        self._cache: DecodingCache | None = None
        self._arguments: tuple[int, int, int | None] | None = None
        """Arguments of the cache except its capacity."""
        self._capacity = 0
        self._segments: list[tuple[int, Tensor]] = []
        """Position and ids of each forward into the cache."""
        self._intact = True
        """True if every forward has completed, over one row without inputs besides its tokens."""
        self._next: Sequence[int] = ()
        self._next_is_plain = True
        """True if the next sequence has no inputs besides its tokens."""
        self._reused = 0
        """Tokens at the start of the next forward that are cached."""

    def expect(self, sequence: Sequence[int], inputs: Inputs | None = None) -> None:
        """Announce the sequence that is decoded next: its ids from its start, at least one, and its inputs besides."""
        self._next, self._next_is_plain = sequence, inputs is None

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> DecodingCache:
        """Return the present cache, cut to the shared prefix, if it can be reused; otherwise an empty one.

        A cache of several rows is not reused. Arguments as of the model.
        """
        arguments = (batch, slack, window)
        fits = self._intact and self._next_is_plain and arguments == self._arguments and capacity <= self._capacity
        if self._cache is not None and fits and (reused := self._roll_back(self._cache)) is not None:
            self._reused = reused
            return self._cache
        self._capacity = max(INITIAL_CAPACITY, 2 * capacity) if batch == 1 else capacity
        self._cache = self.model.new_cache(batch, self._capacity, slack=slack, window=window)
        self._arguments, self._segments, self._intact, self._reused = arguments, [], True, 0
        return self._cache

    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]:
        """Score the token after each token that is not cached; arguments as of the model."""
        if self._reused:
            if inputs is not None:
                raise ValueError(
                    "the sequence has inputs besides its tokens, but none were announced, so that a prefix was reused; "
                    "give them to `expect`"
                )
            tokens = tokens[:, self._reused :]
            lengths = None if lengths is None else lengths - self._reused
        self._reused = 0
        # Stays False if the forward is interrupted.
        intact, self._intact = self._intact and tokens.shape[0] == 1, False
        at = 0 if cache is None else cache.bound
        logits = self.model(tokens, lengths=lengths, inputs=inputs, cache=cache, last_only=last_only)
        self._segments.append((at, tokens[0]))
        self.tokens_run += tokens.shape[1]
        self._intact = intact and cache is self._cache and inputs is None
        return logits

    def _roll_back(self, cache: DecodingCache) -> int | None:
        """Cut the cache to the prefix that it shares with the next sequence; return its length, None if impossible."""
        cached = self._list_cached()[: cache.bound]
        # At least one token must be run for logits.
        most = min(len(cached), len(self._next) - 1)
        shared = next((n for n in range(most) if cached[n] != self._next[n]), most)
        if shared < cache.bound:
            try:
                cache.truncate(shared)
            except ValueError:
                # A window or a running state that cannot go back so far.
                return None
        return shared

    def _list_cached(self) -> list[int]:
        """Return the ids in the cache; later forwards have overwritten earlier ones."""
        cached: list[int] = []
        for at, ids in self._segments:
            cached = [*cached[:at], *ids.tolist()]
        self._segments = [(0, torch.tensor(cached, dtype=torch.long))]
        return cached
