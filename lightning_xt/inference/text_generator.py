"""Texts in, completions out: the base of completion and translation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, Literal

from torch import nn

from lightning_xt.data.prompt_files import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.engine import collect_results
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.request_checks import check_requests
from lightning_xt.generation.requests import GeneratedToken, Request, Result, SamplingParams
from lightning_xt.generation.stop_strings import TailStop
from lightning_xt.inference.detokenizer import IncrementalDetokenizer, TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.memory_errors import explain_out_of_memory

Kind = Literal["language_model", "encoder_decoder"]


@dataclass(frozen=True)
class DecodingSetup:
    """Replacements of the trained network and the method in decoding.

    Args:
        model: model in place of the network. None = the network.
        method: decoding method. None = that of the generation options.
        on_complete: called with each request and the ids of its best completion. None = nothing is called.
        settings: the setup as plain values, for the reader of results.
        network: network in place of the trained one, also of its encoder and in evaluations. None = the trained one.
    """

    model: Autoregressive | None = None
    method: Method | None = None
    on_complete: Callable[[Request, Sequence[int]], None] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    network: nn.Module | None = None


@dataclass(frozen=True)
class Completion:
    """One generated sequence and its text.

    Args:
        pieces: the text without the end token and without a stop string, cut where its ids end.
        score: sum of the log-probabilities of all generated tokens in nats, or the number by which the method ranks.
        tokens: generated ids, with the end token and the ids of a stop string.
        log_probs: log-probability of each of them in nats.
    """

    pieces: list[TextPiece]
    score: float
    tokens: list[int]
    log_probs: list[float]

    @property
    def text(self) -> str:
        """The text as one string."""
        return "".join(piece.text for piece in self.pieces)

    def as_dict(self, log_probs: bool) -> dict[str, Any]:
        """Convert to plain values, with the ids and their log-probabilities if requested."""
        plain: dict[str, Any] = {"text": self.text, "score": _round(self.score)}
        if log_probs:
            plain |= {"tokens": self.tokens, "log_probs": [_round(each) for each in self.log_probs]}
        return plain


@dataclass(frozen=True)
class PromptCompletions:
    """A prompt with its completions.

    Args:
        leading_text: text to show before each completion.
        completions: best first, or in the order of seeds. Empty = the prompt could not be completed.
        metadata: further plain values.
        settings: settings of generation, if results report them.
    """

    leading_text: str
    completions: list[Completion]
    metadata: dict[str, Any]
    settings: dict[str, Any] | None = None

    def as_dict(self, options: GenerationOptions) -> dict[str, Any]:
        """Convert to plain values: the first completion, and all of them if several were requested."""
        each = [completion.as_dict(options.log_probs) for completion in self.completions]
        plain = self.metadata | (each[0] if each else {"text": "", "score": 0.0})
        if options.num_sequences > 1:
            plain["sequences"] = each
        return plain if self.settings is None else plain | {"settings": self.settings}


class GenerationSession:
    """Decoding of requests, with detokenization.

    A sequence ends at the token `end`, if there is one. The options are resolved; the setup may replace the model and
    the method.
    """

    def __init__(
        self,
        model: Autoregressive,
        tokenizer: Tokenizer,
        end: int | None,
        options: GenerationOptions,
        setup: DecodingSetup,
    ) -> None:
        if setup.method is not None and options.method is not None:
            raise ValueError(f"a draft and method {options.settings['method']} exclude each other; set one of them")
        self.model = model if setup.model is None else setup.model
        self.tokenizer, self.end, self.options = tokenizer, end, options
        self.method = options.build_method() if setup.method is None else setup.method
        self.on_complete = setup.on_complete
        # Before any text is read: a model that the window or the method does not support.
        check_requests(self.model, (), options.build_params())
        self.method.check(self.model, (), options.build_params())

    def stream_tokens(self, requests: Sequence[Request]) -> Generator[GeneratedToken, None, None]:
        """Yield tokens once certain; ValueError by the call for an invalid request, later for too little memory."""
        params = self.make_params(lambda number: requests[number].after)
        return self._report(requests, self.method(self.model, requests, params))

    def make_params(self, find_after: Callable[[int], int | None]) -> SamplingParams:
        """Make the sampling parameters; `find_after` returns the id before the completion of a request's number."""
        control = [each for each in (self.tokenizer.pad, self.tokenizer.start) if each is not None]
        known = self.tokenizer.vocab_size == self.model.vocab_size
        return self.options.build_params(
            banned=self.tokenizer.unused if known else (),
            end=self.end,
            control=control,
            stop=self._make_stop(find_after),
            tail_stop=self._make_tail_stop(),
        )

    def _report(
        self, requests: Sequence[Request], tokens: Generator[GeneratedToken, None, None]
    ) -> Generator[GeneratedToken, None, None]:
        rows = min(self.options.batch, len(requests))
        longest = max((len(request.prompt) + request.max_new_tokens for request in requests), default=0)
        doing = f"decode {rows} rows at once with a cache of {longest} tokens each"
        # Closed with this generator, so that the model returns to its mode.
        with explain_out_of_memory(doing, "--max_new_tokens"), closing(tokens):
            ids: dict[int, list[int]] = {}
            for each in tokens:
                if each.sequence == 0 and self.on_complete is not None:
                    ids.setdefault(each.request, []).append(each.token)
                    if each.last:
                        self.on_complete(requests[each.request], ids.pop(each.request))
                yield each

    def stream_text(self, request: Request) -> Generator[TextPiece, None, None]:
        """Yield the text of the best completion once it is certain; an invalid request is refused by the call."""
        return self._detokenize(self.stream_tokens([request]), self.new_detokenizer(request.after))

    def _detokenize(
        self, tokens: Generator[GeneratedToken, None, None], detokenizer: IncrementalDetokenizer
    ) -> Generator[TextPiece, None, None]:
        with closing(tokens):
            for each in tokens:
                if each.sequence == 0:
                    yield from detokenizer.push(each.token, each.log_prob)
        yield from detokenizer.finish()

    def complete(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return the completions of each request: best first if the method ranks them, else in the order of seeds.

        With stop strings, ranked completions of one text are one: their stop strings have different tokens.
        """
        found = zip(self.generate(requests), requests, strict=True)
        return [self.make_completions(results, request.after) for results, request in found]

    def make_completions(self, results: Sequence[Result], after: int | None) -> list[Completion]:
        """Detokenize the sequences of one request; ranked ones of one text become one if there are stop strings."""
        completed = [self._make_completion(result, after) for result in results]
        if not self.options.stop or not self.method.ranked:
            return completed
        return list({each.text: each for each in reversed(completed)}.values())[::-1]

    def generate(self, requests: Sequence[Request]) -> list[list[Result]]:
        """Return the sequences of each request without detokenization, in the order of `complete`."""
        copies = self.options.num_return_sequences
        copied = [replace(each, seed=each.seed + copy) for each in requests for copy in range(copies)]
        found = collect_results(self.stream_tokens(copied), len(copied))
        return [list(chain(*found[first : first + copies])) for first in range(0, len(found), copies)]

    def _make_completion(self, result: Result, after: int | None) -> Completion:
        detokenizer, used = self.new_detokenizer(after), 0
        pieces: list[TextPiece] = []
        # Your own method may ignore stop strings.
        while used < len(result.tokens) and not detokenizer.stopped:
            pieces += detokenizer.push(result.tokens[used], result.log_probs[used])
            used += 1
        pieces += detokenizer.finish()
        return Completion(pieces, result.score, result.tokens[:used], result.log_probs[:used])

    def new_detokenizer(self, after: int | None) -> IncrementalDetokenizer:
        """Make a detokenizer of one sequence that continues the text of an id. None = it begins a text."""
        return IncrementalDetokenizer(self.tokenizer, self.end, self.options.stop, after)

    def _make_stop(self, find_after: Callable[[int], int | None]) -> Any:
        """Make the callback that ends a sequence at a stop string."""
        if not self.options.stop or self.method.ranked:
            return None
        detokenizers: dict[int, IncrementalDetokenizer] = {}

        def stop(request: int, token: int) -> bool:
            if request not in detokenizers:
                detokenizers[request] = self.new_detokenizer(find_after(request))
            detokenizers[request].push(token)
            return detokenizers[request].stopped

        return stop

    def _make_tail_stop(self) -> TailStop | None:
        """Make the condition that ends a hypothesis at a stop string."""
        if not self.options.stop or not self.method.ranked:
            return None

        def meets_stop(tokens: Sequence[int]) -> bool:
            detokenizer = self.new_detokenizer(tokens[0])
            for token in tokens[1:]:
                detokenizer.push(token)
            return detokenizer.stopped

        # A character may take 4 tokens, its bytes; the earliest may lack its first ones.
        return TailStop(4 * max(map(len, self.options.stop)) + 4, meets_stop)


class TextGenerator(ABC):
    """Generator of texts from texts: completes or translates them."""

    kind: ClassVar[Kind]
    """Kind of its model."""

    @property
    @abstractmethod
    def output_tokenizer(self) -> Tokenizer:
        """Tokenizer of the generated text."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids that it generates."""

    @abstractmethod
    def stream_text(self, text: str, options: GenerationOptions, repeat: int = 0) -> Generator[TextPiece, None, None]:
        """Yield the text to show for one prompt, once it is certain; ValueError if the prompt is invalid.

        Args:
            text: the prompt.
            options: generation options.
            repeat: number of equal prompts before it, by which their random numbers differ.
        """

    @abstractmethod
    def complete(self, prompts: Sequence[Prompt], options: GenerationOptions) -> list[PromptCompletions]:
        """Return the completions of each prompt, whose `id` the metadata hold; ValueError if a prompt is invalid."""

    def find_excess(self, texts: Sequence[str], options: GenerationOptions) -> str | None:
        """Return a sentence about completions that become longer than the training data; None if none does."""
        return None

    def find_problem(self, text: str) -> str | None:
        """Return a sentence about the ignored part of a prompt, None if all is used; ValueError if it is invalid."""
        return None


def list_texts(texts: object) -> list[str]:
    """Return one or several texts as a list.

    Raises:
        TypeError: it is not a text, nor a list of texts.
    """
    several = isinstance(texts, Iterable) and not isinstance(texts, str | bytes | Mapping)
    listed: list[Any] = list(texts) if several else [texts]  # type: ignore[call-overload]  # known to be iterable
    for each in listed:
        if not isinstance(each, str):
            raise TypeError(
                f"a text was expected, or a list of texts, but there is {each!r:.40}, of type {type(each).__name__}; "
                "give text, and ids as a tensor to generate"
            )
    return listed


def _round(value: float) -> float:
    """Round to 4 decimals, or a small number to 4 digits: with a high length penalty all scores are small."""
    return round(value, 4) if abs(value) >= 0.1 else float(f"{value:.4g}") + 0.0
