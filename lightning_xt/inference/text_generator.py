"""From requests to texts: what predicting, generating and showing samples have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from lightning_xt.data.prompt_files import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.engine import collect_results
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, Result
from lightning_xt.inference.detokenizer import IncrementalDetokenizer, TextPiece
from lightning_xt.inference.generation_options import GenerationOptions

NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What torch says in a RuntimeError of each kind of device."""


@dataclass(frozen=True)
class DecodingSetup:
    """What takes part in answering beside the network that was trained.

    Args:
        model: scores the next token in the network's place. None = the network itself.
        method: how sequences are made. None = as the sampling has it.
        on_complete: called with each request and the ids of its best completion. None = nothing is called.
        settings: all of this as plain values, for those who read results.
    """

    model: Autoregressive | None = None
    method: Method | None = None
    on_complete: Callable[[Request, Sequence[int]], None] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """One sequence that was drawn, and its text.

    Args:
        pieces: the text, without the end and without a stop string, as the ids cut it.
        score: sum of the log-probabilities of all that was drawn, in nats, or what the method ranks sequences by.
        tokens: ids that were drawn, the end and what a stop string is made of included.
        log_probs: of each of them, in nats.
    """

    pieces: list[TextPiece]
    score: float
    tokens: list[int]
    log_probs: list[float]

    @property
    def text(self) -> str:
        """The text in one."""
        return "".join(piece.text for piece in self.pieces)

    def as_dict(self, log_probs: bool) -> dict[str, Any]:
        """The same as plain values.

        Args:
            log_probs: whether to tell the ids and their log-probabilities.
        """
        found: dict[str, Any] = {"text": self.text, "score": round(self.score, 4)}
        if log_probs:
            found |= {"tokens": self.tokens, "log_probs": [round(each, 4) for each in self.log_probs]}
        return found


@dataclass(frozen=True)
class PromptCompletions:
    """A text with its answers.

    Args:
        leading_text: what stands before each of them where they are shown.
        completions: best first, or seed by seed. Empty = it could not be answered.
        metadata: what else is known, as plain values.
        settings: how it was answered, where that is told.
    """

    leading_text: str
    completions: list[Completion]
    metadata: dict[str, Any]
    settings: dict[str, Any] | None = None

    def as_dict(self, sampling: GenerationOptions) -> dict[str, Any]:
        """All of it as plain values: the first answer, and all of them where several were asked for."""
        each = [answer.as_dict(sampling.log_probs) for answer in self.completions]
        found = self.metadata | (each[0] if each else {"text": "", "score": 0.0})
        if sampling.sequences > 1:
            found["sequences"] = each
        return found if self.settings is None else found | {"settings": self.settings}


class GenerationSession:
    """Decodes requests and writes down what is drawn.

    Args:
        model: what scores the next token.
        tokenizer: turns ids into text.
        end: id with which a text ends. None = none.
        sampling: how tokens are chosen, resolved.
        decoding: what takes the model's place, or stands beside it.
    """

    def __init__(
        self,
        model: Autoregressive,
        tokenizer: Tokenizer,
        end: int | None,
        sampling: GenerationOptions,
        decoding: DecodingSetup,
    ) -> None:
        if decoding.method is not None and sampling.method is not None:
            raise ValueError(
                f"a draft is a method of its own, but the method is {sampling.settings['method']}; give one of them"
            )
        self.model = model if decoding.model is None else decoding.model
        self.tokenizer, self.end, self.sampling = tokenizer, end, sampling
        self.method = sampling.build_method() if decoding.method is None else decoding.method
        self.on_complete = decoding.on_complete

    def stream_tokens(self, requests: Sequence[Request]) -> Generator[GeneratedToken, None, None]:
        """Tokens as they become certain; requests that cannot be met are refused before the first is asked for.

        Raises:
            ValueError: a request cannot be met, or, later, there is not enough memory to.
        """
        choices = self.sampling.build_params(end=self.end, stop=self._stop(len(requests)))
        return self._report(requests, self.method(self.model, requests, choices))

    def _report(
        self, requests: Sequence[Request], drawing: Generator[GeneratedToken, None, None]
    ) -> Generator[GeneratedToken, None, None]:
        rows = min(self.sampling.batch, len(requests))
        longest = max((len(request.prompt) + request.max_new_tokens for request in requests), default=0)
        asked = f"decode {rows} rows at once with a cache of {longest} tokens each"
        # Closed when whoever reads has enough too: the model is put back into the mode it was in.
        with explain_out_of_memory(asked, "--max_new_tokens"), closing(drawing) as drawn:
            ids: dict[int, list[int]] = {}
            for each in drawn:
                if each.sequence == 0 and self.on_complete is not None:
                    ids.setdefault(each.request, []).append(each.token)
                    if each.last:
                        self.on_complete(requests[each.request], ids.pop(each.request))
                yield each

    def stream_text(self, request: Request) -> Generator[TextPiece, None, None]:
        """The text of the best answer as it becomes certain; it is refused before the first is asked for."""
        return self._written(self.stream_tokens([request]))

    def _written(self, drawing: Generator[GeneratedToken, None, None]) -> Generator[TextPiece, None, None]:
        detokenizer = self.new_detokenizer()
        with closing(drawing) as drawn:
            for each in drawn:
                if each.sequence == 0:
                    yield from detokenizer.push(each.token, each.log_prob)
        yield from detokenizer.finish()

    def complete(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The sequences that answer each request: best first where the method ranks them, else seed by seed."""
        return [[self._answer(result) for result in results] for results in self.generate(requests)]

    def generate(self, requests: Sequence[Request]) -> list[list[Result]]:
        """The same with no heed to what is text."""
        copies = self.sampling.num_return_sequences
        asked = [replace(each, seed=each.seed + copy) for each in requests for copy in range(copies)]
        found = collect_results(self.stream_tokens(asked), len(asked))
        return [list(chain(*found[first : first + copies])) for first in range(0, len(found), copies)]

    def _answer(self, result: Result) -> Completion:
        detokenizer, used = self.new_detokenizer(), 0
        pieces: list[TextPiece] = []
        # A method that ranks whole sequences knows no stop strings.
        while used < len(result.tokens) and not detokenizer.stopped:
            pieces += detokenizer.push(result.tokens[used], result.log_probs[used])
            used += 1
        pieces += detokenizer.finish()
        return Completion(pieces, result.score, result.tokens[:used], result.log_probs[:used])

    def new_detokenizer(self) -> IncrementalDetokenizer:
        """What turns ids that are drawn into text."""
        return IncrementalDetokenizer(self.tokenizer, self.end, self.sampling.stop)

    def _stop(self, requests: int) -> Any:
        """What tells the method that a text has met a stop string."""
        if not self.sampling.stop or self.method.ranked:
            return None
        detokenizers = [self.new_detokenizer() for _ in range(requests)]

        def stop(request: int, token: int) -> bool:
            detokenizers[request].push(token)
            return detokenizers[request].stopped

        return stop


class TextGenerator(ABC):
    """Answers texts with a model: by continuing them, by translating them."""

    @abstractmethod
    def stream_text(self, text: str, sampling: GenerationOptions) -> Generator[TextPiece, None, None]:
        """What is shown for one text, as it becomes certain.

        Raises:
            ValueError: the text cannot be answered.
        """

    @abstractmethod
    def complete(self, prompts: Sequence[Prompt], sampling: GenerationOptions) -> list[PromptCompletions]:
        """The answers to each text; what is told of each has its `id`.

        Raises:
            ValueError: one of them cannot be answered.
        """

    def find_problem(self, text: str) -> str | None:
        """What of a text is not read; None where all of it is.

        Raises:
            ValueError: the text cannot be answered.
        """
        return None


@contextmanager
def explain_out_of_memory(asked: str, instead: str) -> Iterator[None]:
    """Says what was asked for where a machine has no room for it.

    Args:
        asked: what it was to do.
        instead: what else than the rows at once can be made less.

    Raises:
        ValueError: there is no room.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(said in str(error) for said in NO_MEMORY):
            raise
        raise ValueError(
            f"there is not enough memory to {asked}; lower --batch (of predict --sampling.batch), or {instead}"
        ) from error
