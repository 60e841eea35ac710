"""A decode step as a function of tensors."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightning_xt.core.cache import Cache
from lightning_xt.core.fixed_context import FixedContext
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.mixers.base import Recurrence, choose_chunk

MOST = 64
"""Most tokens of a call: a window keeps as many slots beyond its width."""


class DecodeStep(nn.Module):
    """Decode step of a decoder, from tokens and cache to logits and the new cache, for other programs.

    A prompt is given in calls of up to `most` tokens, beginning with a cache of zeros and lengths of 0.

    Args:
        decoder: the decoder, in evaluation mode.
        capacity: most tokens of a row.
        inputs: context of one row, of which only the shape matters. None = the decoder reads no given context.
    """

    def __init__(self, decoder: Decoder, capacity: int, inputs: Inputs | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        chunks = [choose_chunk(each.chunk, "cpu") for each in decoder.modules() if isinstance(each, Recurrence)]
        self.most = min([capacity, MOST, *chunks])
        """Most tokens of a call."""
        template = decoder.new_cache(1, capacity, slack=self.most)
        with torch.no_grad():
            # The parts declare their buffers when they first append to them.
            decoder(torch.zeros(1, 1, dtype=torch.long), inputs=inputs, cache=template)
        if not isinstance(template, Cache):
            raise TypeError("a decoder with segments has no functional step")
        self._template = template
        self.cache_names = [f"cache_{call}_{name}" for call, each in enumerate(template.collect()) for name in each]
        self.context_names = [f"{start}_{part}" for start, _ in self._list_contexts() for part in ("keys", "values")]
        """Names of the tensors of the context, which do not change."""
        self.reads_context = inputs is not None
        if not self.reads_context:
            for start, each in self._list_contexts():
                self.register_buffer(f"{start}_keys", each.keys.detach())
                self.register_buffer(f"{start}_values", each.values.detach())

    def forward(
        self, tokens: Int[Tensor, "b n"], lengths: Int[Tensor, " b"], *rest: Tensor
    ) -> tuple[Float[Tensor, "b n v"], ...]:
        """Compute the logits after each token, and the new tensors of the cache.

        Args:
            tokens: ids, at most `most` a row.
            lengths: number of tokens that each row holds already.
            rest: if the decoder reads a given context, its mask and the tensors of `context_names`; then the tensors
                of `cache_names`.
        """
        mask, known, held = self._split(rest)
        tensors: list[dict[str, Tensor]] = []
        old = iter(held)
        for each in self._template.collect():
            tensors.append({name: next(old).clone() for name in each})
        cache = self._template.build_step(lengths, tokens.shape[1], tensors, self._place_contexts(mask, known))
        states, _ = self.decoder.run_layers(tokens, None, None, cache, Trace())
        return self.decoder.head(states), *(tensor for each in cache.collect() for tensor in each.values())

    def make_cache(self, rows: int) -> list[Tensor]:
        """Make the tensors of an empty cache."""
        empty = [tensor for each in self._template.collect() for tensor in each.values()]
        return [tensor.new_zeros(rows, *tensor.shape[1:]) for tensor in empty]

    def _split(self, rest: Sequence[Tensor]) -> tuple[Bool[Tensor, "b m"] | None, Sequence[Tensor], Sequence[Tensor]]:
        """Split the further inputs into the mask and the tensors of the context, and those of the cache."""
        if not self.reads_context:
            return None, [self.get_buffer(name) for name in self.context_names], rest
        end = 1 + len(self.context_names)
        return rest[0], rest[1:end], rest[end:]

    def _place_contexts(self, mask: Tensor | None, known: Sequence[Tensor]) -> list[dict[str, FixedContext]]:
        tensors = iter(known)
        return [
            {name: FixedContext(next(tensors), next(tensors), each.mask if mask is None else mask)
             for name, each in call.items()}
            for call in self._template.collect_contexts()
        ]  # fmt: skip

    def _list_contexts(self) -> Iterator[tuple[str, FixedContext]]:
        for call, each in enumerate(self._template.collect_contexts()):
            for name, context in each.items():
                yield f"{name}_{call}", context
