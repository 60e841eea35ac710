"""A decoder with compiled decode steps."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from inspect import signature
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

logger = logging.getLogger(__name__)

MAX_PROGRAMS = 64
"""Compiled programs of a step at most. Torch's own limit is 8, which the kinds of requests of a server exceed."""
MAX_STEP_TOKENS = 64
"""Tokens of a row that a compiled step runs at most. It serves any number; more are a prompt, or a piece of one."""


class Compiled(ModelWrapper):
    """Decoder whose prefill runs as it is and whose decode steps run one compiled program.

    A program is compiled once for one row and once for several (int8 weights: for up to 8 and for more; int4: for up to
    4 and for more), in seconds to a minute; it serves every length, batch and call. Other programs serve each window of
    `new_cache`, contexts with a mask, and contexts that beams share. The first step that scores several tokens of a row
    at once, to verify drafts, compiles another, which serves every number of them. Steps that would need more than 64
    programs run as they are. On a CPU `convert_weights(decoder, ...)` makes steps fastest. On CUDA steps of one token
    request graphs.

    Args:
        decoder: the decoder; its weights may change afterwards, its modules and their types may not.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._decoder = decoder
        self._full: list[Callable[..., Tensor]] = []
        """Steps that have as many programs as they may."""
        self._on_cuda = decoder.token_embedding.weight.is_cuda
        self._can_verify = not decoder.recurrences
        self._step = _compile_step(decoder, "step", graphs=self._on_cuda)
        # Drafts have many lengths, for each of which a graph would be recorded.
        self._verify = _compile_step(decoder, "verify", graphs=False)

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
        rows, n = tokens.shape
        if not isinstance(cache, Cache) or cache.empty or (n > 1 and (last_only or not self._verifies(n, lengths))):
            return self._decoder(tokens, lengths=lengths, inputs=inputs, cache=cache, last_only=last_only)
        announce(self._decoder, tokens, lengths, inputs, cache)
        cache.mark_for_compiler()
        if rows > 1:
            for tensor in (tokens, cache.lengths, cache.extent.written):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        if n > 1:
            types = None if inputs is None else inputs.types
            for tensor, axis in ((tokens, 1), (cache.extent.index, 0), *([] if types is None else [(types, 1)])):
                torch._dynamo.maybe_mark_dynamic(tensor, axis)
        logits = self._run(self._step if n == 1 else self._verify, tokens, inputs, cache)
        cache.commit()
        # The next replay of the graph overwrites this output.
        return logits.clone() if self._on_cuda and n == 1 else logits

    def _run(self, step: Callable[..., Tensor], tokens: Tensor, inputs: Inputs | None, cache: Cache) -> Tensor:
        """Run a compiled step, or the decoder's own if there are too many programs."""
        try:
            # A full step compiles nothing more, or torch would print its reasons each time.
            with torch.compiler.set_stance("eager_on_recompile") if step in self._full else nullcontext():
                return step(tokens, inputs, cache)
        except torch._dynamo.exc.FailOnRecompileLimitHit:
            # Raised before the step has computed anything.
            if step not in self._full:
                self._full.append(step)
                logger.warning("a decode step has %d compiled programs; others run as they are", MAX_PROGRAMS)
            return self._decoder.step(tokens, inputs, cache)

    def _verifies(self, n: int, lengths: Tensor | None) -> bool:
        """Return whether a compiled step scores n tokens of each row at once."""
        return n <= MAX_STEP_TOKENS and lengths is None and self._can_verify


def _compile_step(decoder: Decoder, name: str, *, graphs: bool) -> Callable[..., Tensor]:
    """Compile the decoder's step, with graphs as by mode="reduce-overhead"."""
    options: dict[str, Any] = {
        # Guards on modules would take as long at each step as a layer.
        "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
        "triton.cudagraphs": graphs,
    }
    limits: dict[str, Any] = {}
    if "recompile_limit" in signature(torch.compile).parameters:
        limits["recompile_limit"] = MAX_PROGRAMS
    return torch.compile(_copy_step(decoder, name), fullgraph=True, options=options, **limits)


def _copy_step(decoder: Decoder, name: str) -> MethodType:
    """Return the decoder's step with its own code object.

    Torch keeps compiled programs, and allows few of them, by code object.
    """
    function = Decoder.step
    code = function.__code__.replace(co_name=f"{name}_{id(decoder)}")
    step = FunctionType(code, function.__globals__, code.co_name, function.__defaults__)
    return MethodType(step, decoder)
