"""The contract of a decoding method: make sequences from next-token scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import ClassVar, Protocol, runtime_checkable

import torch

from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.request_checks import check_requests
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams


@runtime_checkable
class DecodingRun(Protocol):
    """Requests that a method decodes together."""

    @property
    def busy(self) -> bool:
        """True while there are tokens left to generate."""

    def advance(self) -> list[GeneratedToken]:
        """Run a decode step; return the tokens that have become certain."""


@runtime_checkable
class CancellableRun(DecodingRun, Protocol):
    """Run that can end some of its requests."""

    def cancel(self, number: int) -> None:
        """End a request, whose rows are free after the next step; a number without a request is ignored."""


class Method(ABC):
    """Decoding method: generates the tokens of requests, one by one if it can."""

    ranked: ClassVar[bool] = False
    """True for a method that ranks whole sequences, none of which is certain before the end: `tail_stop` ends them."""
    needs_hidden_states: ClassVar[bool] = False
    """True for a method that needs the hidden states before the head, which only a `Decoder` returns."""
    rereads_prefix: ClassVar[bool] = True
    """False for a method that can continue a cached sequence: the sequence is one row of the cache from its first token
    to its last, and the method needs nothing else. Otherwise the method prefills it from its start."""
    uses_seed: bool = True
    """True for a method whose sequences depend on the seed."""
    num_sequences: int = 1
    """Most sequences per request."""
    rows_per_request: int = 1
    """Rows of the cache that decode one request."""

    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        """Yield the tokens of all requests once they are certain; those of a sequence in order, the last one marked.

        The model decodes in evaluation mode and is left in its mode, also if the generator is closed early.

        Raises:
            ValueError: a request or a parameter is out of range, or the method does not support it; raised by the
                call, before the first token is requested.
        """
        check_requests(model, requests, params)
        self.check(model, requests, params)
        return self._generate(model, requests, params)

    def check(self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams) -> None:  # noqa: B027
        """Raise a ValueError for a model, a request or a parameter that this method does not support."""

    def group(self, requests: Sequence[Request], params: SamplingParams) -> list[list[int]]:
        """Return the numbers of requests to decode together: of similar lengths, to waste little on padding."""
        size = max(1, params.batch // self.rows_per_request)

        def sort_key(number: int) -> tuple[int, int, int]:
            request = requests[number]
            return request.num_soft_tokens, len(request.prompt), request.max_new_tokens

        groups = []
        for _, same in groupby(sorted(range(len(requests)), key=sort_key), lambda number: sort_key(number)[0]):
            numbers = list(same)
            groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
        return groups

    def list_models(self, model: Autoregressive) -> list[Autoregressive]:
        """Return all models that run, to be put into evaluation mode."""
        return [model]

    @abstractmethod
    def start(self, model: Autoregressive, requests: Mapping[int, Request], params: SamplingParams) -> DecodingRun:
        """Prefill the prompts of a group of requests, by their numbers; the model is in evaluation mode."""

    def _generate(
        self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        with ExitStack() as modes:
            for each in self.list_models(model):
                modes.enter_context(eval_mode(each))
            for numbers in self.group(requests, params):
                # Entered for each step: the consumer of the tokens runs outside inference mode.
                with torch.inference_mode():
                    run = self.start(model, {number: requests[number] for number in numbers}, params)
                while run.busy:
                    with torch.inference_mode():
                        tokens = run.advance()
                    yield from tokens


MethodFactory = Callable[[], Method]
