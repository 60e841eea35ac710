"""A decoder with compiled decode steps."""

from types import FunctionType, MethodType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.model_wrapper import ModelWrapper
from lightning_xt.generation.protocol import DecodingCache
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.decoding_cache import announce
from lightning_xt.models.segmented_cache import SegmentedCache


class Compiled(ModelWrapper):
    """Decoder whose prefill runs as it is and whose decode steps run one compiled program.

    The program is compiled once for one row and once for several (int8 weights: for up to 8 and for more), in seconds
    to a minute; it serves every length, batch and call. On a CPU `convert_weights(decoder, ...)` makes it fastest. On
    CUDA it requests graphs.

    Args:
        decoder: the decoder; its weights may change afterwards, its modules and their types may not.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._decoder = decoder
        self._on_cuda = decoder.token_embedding.weight.is_cuda
        options: dict[str, Any] = {
            # Guards on modules would take as long at each step as a layer.
            "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
            # As mode="reduce-overhead" does.
            "triton.cudagraphs": self._on_cuda,
        }
        self._step = torch.compile(_copy_step(decoder), fullgraph=True, options=options)

    def new_cache(
        self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None
    ) -> Cache | SegmentedCache:
        return self._decoder.new_cache(batch, capacity, slack=slack, window=window, static=True)

    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]:
        if not isinstance(cache, Cache) or cache.empty or tokens.shape[1] > 1:
            return self._decoder(tokens, lengths=lengths, inputs=inputs, cache=cache, last_only=last_only)
        announce(self._decoder, tokens, lengths, inputs, cache)
        cache.mark_for_compiler()
        if len(tokens) > 1:
            for tensor in (tokens, cache.lengths, cache.extent.written):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        logits: Tensor = self._step(tokens, inputs, cache)
        cache.commit()
        # The next replay of the graph overwrites this output.
        return logits.clone() if self._on_cuda else logits


def _copy_step(decoder: Decoder) -> MethodType:
    """Return the decoder's step with its own code object, because torch keeps compiled programs by code object."""
    function = Decoder.step
    code = function.__code__.replace(co_name=f"step_{id(decoder)}")
    step = FunctionType(code, function.__globals__, code.co_name, function.__defaults__)
    return MethodType(step, decoder)
