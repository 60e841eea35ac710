"""The contract of a method: how whole sequences are made from next-token scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import ClassVar

from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams


class Method(ABC):
    """Answers requests, token by token where it can."""

    ranked: ClassVar[bool] = False
    """Whether it ranks whole sequences, none of which is certain before the end; it ignores `SamplingParams.stop`."""
    needs_hidden_states: ClassVar[bool] = False
    """Whether it needs the vectors that a head makes logits of, which a `Decoder` alone gives."""
    rereads_prefix: ClassVar[bool] = True
    """Whether it must read a text from its start to go on with it. Not so where each text is one row from its first
    token to its last, of which it needs nothing but the model's memory."""
    draws: bool = True
    """Whether another seed gives another text."""

    @property
    def sequences(self) -> int:
        """Sequences that it gives for each request, at most."""
        return 1

    @abstractmethod
    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        """Tokens of all requests as they become certain; those of one sequence in order, the last one marked.

        The model decodes in evaluation mode and is left as it was, also when the generator is closed early.

        Raises:
            ValueError: choices that the method cannot make; at once, before the first token is asked for.
        """


MethodFactory = Callable[[], Method]
