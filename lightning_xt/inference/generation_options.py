"""Generation options that commands, models and callbacks share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from lightning_xt.generation.engine import build_filters
from lightning_xt.generation.filters.banned import Banned
from lightning_xt.generation.filters.base import Filter, FilterFactory
from lightning_xt.generation.methods.base import Method, MethodFactory
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.requests import SamplingParams
from lightning_xt.generation.stop_strings import StopStrings, TailStop
from lightning_xt.system.option_checks import check_factory, check_option


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of generation.

    Args:
        max_new_tokens: most tokens to generate. None = 256; for an encoder-decoder twice the source's tokens plus 32.
        temperature: divides the logits before the filters; below 1 is more certain, 0 always takes the most likely
            token. None = 1; for an encoder-decoder 0.
        filters: further changes of the logits, in order: penalties, banned tokens and others.
        top_k: sample only from the `top_k` most likely tokens. None = any.
        top_p: sample only from the most likely tokens with this total probability. None = any.
        min_p: sample only from tokens with at least this fraction of the highest probability. None = any.
        method: decoding method. None = Sample, one token after the other.
        stop: strings that end a completion before their first occurrence, wherever tokens end.
        num_return_sequences: completions per prompt; number n samples with seed + n. Methods that rank their sequences
            have `n_best` instead.
        window: tokens that each layer can attend back to, for sequences longer than the trained length. None = the
            model's own.
        batch: most rows decoded at once; no completion depends on it.
        log_probs: whether results hold the generated ids and their log-probabilities in nats.
        seed: start of the random numbers, which differ between prompts.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    filters: Sequence[FilterFactory] = ()
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    method: MethodFactory | None = None
    stop: Sequence[str] = ()
    num_return_sequences: int = 1
    window: int | None = None
    batch: int = 64
    log_probs: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        # Refuses values out of range before any training.
        for name in ("max_new_tokens", "window", "num_return_sequences", "batch"):
            check_option("sampling", name, getattr(self, name), least=1)
        check_option("sampling", "temperature", self.temperature, least=0, below=float("inf"))
        if isinstance(self.stop, str):
            raise ValueError(f"sampling: stop is the text {self.stop!r}; give a list of texts, such as [{self.stop!r}]")
        for make in self.filters:
            check_factory("filters", make, (Filter,))
        if self.method is not None:
            check_factory("method", self.method, (Method,))
        StopStrings(self.stop)
        self._build_filters()
        method = self.build_method()
        if method.ranked and self.num_return_sequences > 1:
            raise ValueError(
                f"sampling: num_return_sequences is {self.num_return_sequences}, but the method, "
                f"{self.settings['method']}, ranks sequences itself and returns its n_best; set --method.n_best instead"
            )
        if not method.uses_seed and self.num_return_sequences > 1:
            raise ValueError(
                f"sampling: num_return_sequences is {self.num_return_sequences}, but the method, "
                f"{self.settings['method']}, samples nothing, so all would be the same; choose a method that "
                "samples, or ask for one sequence"
            )

    def resolve(self, *, temperature: float, max_new_tokens: int | None = None) -> "GenerationOptions":
        """Replace unset options by defaults; ValueError for options that would change nothing at temperature 0."""
        resolved = replace(
            self,
            max_new_tokens=max_new_tokens if self.max_new_tokens is None else self.max_new_tokens,
            temperature=temperature if self.temperature is None else self.temperature,
        )
        if resolved.num_return_sequences > 1 and resolved.temperature == 0:
            raise ValueError(
                f"sampling: num_return_sequences is {resolved.num_return_sequences}, but at temperature 0 all would "
                "be the same; set a temperature above 0, or a method that ranks sequences, such as BeamSearch"
            )
        if self.temperature is None and temperature == 0 and isinstance(self.build_method(), Sample):
            # Values that keep all tokens, or the most likely one alone, mean the same at every temperature.
            for name, idle in (("top_k", (None, 1)), ("top_p", (None, 1)), ("min_p", (None, 0))):
                if (value := getattr(self, name)) not in idle:
                    raise ValueError(
                        f"sampling: {name} is {value}, but without a temperature the most likely token is always "
                        f"taken; set a temperature above 0, or omit {name}"
                    )
        return resolved

    def require_single(self, doing: str) -> "GenerationOptions":
        """Return the options; ValueError if several sequences are requested, of which all but one would be lost."""
        if self.num_sequences > 1:
            raise ValueError(
                f"sampling: {doing} one sequence of each prompt or source, but {self.num_sequences} are requested "
                "(num_return_sequences, or n_best of the method); request one"
            )
        return self

    def widen(self, rows: int) -> "GenerationOptions":
        """Decode as many rows at once as are given together, unless `batch` is set."""
        return replace(self, batch=max(self.batch, rows)) if self.batch == type(self).batch else self

    def build_params(
        self,
        *,
        banned: Sequence[int] = (),
        end: int | None = None,
        control: Sequence[int] = (),
        stop: Callable[[int, int], bool] | None = None,
        tail_stop: TailStop | None = None,
    ) -> SamplingParams:
        """Build the parameters of a method, with banned ids and the arguments of `SamplingParams`.

        Each request has its own `max_new_tokens` and seed.
        """
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            filters=[*([Banned(banned)] if banned else []), *self._build_filters()],
            end=end,
            control=control,
            stop=stop,
            tail_stop=tail_stop,
            batch=self.batch,
            window=self.window,
        )

    def build_method(self) -> Method:
        """Build the method."""
        return Sample() if self.method is None else self.method()

    @property
    def num_sequences(self) -> int:
        """Most completions per prompt."""
        return self.build_method().num_sequences * self.num_return_sequences

    @property
    def settings(self) -> dict[str, Any]:
        """The options as plain values, for the reader of results; without the batch, which changes no result."""
        plain = {name: value for name, value in vars(self).items() if name not in ("batch", "log_probs")}
        return plain | {
            "filters": [repr(make()) for make in self.filters],
            "method": _describe_method(self.method or Sample),
            "stop": list(self.stop),
        }

    def _build_filters(self) -> list[Filter]:
        own = build_filters(top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)
        return [*(make() for make in self.filters), *own]


@cache
def _list_parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    """List the parameters of a method's class, once: `inspect` leaves objects that wait for the collector."""
    return inspect.signature(kind).parameters


def _describe_method(make: MethodFactory) -> str:
    """Return a method's name with its options."""
    method, given = make(), getattr(make, "keywords", {})
    options = {
        name: getattr(method, name, given.get(name, option.default))
        for name, option in _list_parameters(type(method)).items()
    }
    return f"{type(method).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"
