"""The contract of a method: how whole sequences are made from next-token scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence

from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Choices, Drawn, Request


class Method(ABC):
    """Answers requests, token by token where it can."""

    @abstractmethod
    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], choices: Choices
    ) -> Generator[Drawn, None, None]:
        """Tokens of all requests as they become certain; those of one sequence in order, the last one marked.

        The model decodes in evaluation mode and is left as it was, also when the generator is closed early.

        Raises:
            ValueError: choices that the method cannot make.
        """


MethodFactory = Callable[[], Method]
