"""How a model is sampled: the options that commands and callbacks share."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_xt.generation.filters.base import Filter, FilterFactory
from lightning_xt.generation.filters.min_p import MinP
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.filters.top_p import TopP
from lightning_xt.generation.methods.base import Method, MethodFactory
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.requests import SamplingParams
from lightning_xt.generation.stop_strings import StopStrings


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of sampling.

    Args:
        max_new_tokens: most tokens to generate. None = 256; for an encoder-decoder twice the source's tokens plus 32.
        temperature: divides the logits before anything else; below 1 is more certain, 0 always takes the likeliest.
            None = 1, of an encoder-decoder 0.
        filters: what changes the logits next, in order: penalties, banned words and others.
        top_k: only the so many likeliest tokens may be drawn. None = any.
        top_p: only the likeliest tokens that together have this share of the probability may be drawn. None = any.
        min_p: only tokens at least this share as likely as the likeliest may be drawn. None = any.
        method: how sequences are made from the scores of the next token. None = one token is drawn after the other.
        stop: texts before which an answer ends, wherever the borders of its tokens are.
        num_return_sequences: answers to each prompt, of which number n draws with the seed and n more. A method that
            ranks its sequences has an option of its own.
        window: tokens that each layer may look back, for texts longer than those the model was trained on. None = as
            the model has it.
        batch: most rows decoded at once; no text depends on it.
        log_probs: whether results hold the ids that were drawn and the log-probability of each, in nats.
        seed: where the random numbers start.
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
        # Refuses what is out of range, before anything is trained.
        for name in ("max_new_tokens", "window"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"sampling: {name} is {value}; it must be at least 1 token")
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise ValueError(f"sampling: temperature is {self.temperature}; it must be at least 0")
        for name in ("num_return_sequences", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"sampling: {name} is {getattr(self, name)}; it must be at least 1")
        StopStrings(self.stop)
        self._made_filters()
        method = self.build_method()
        if method.ranked and self.num_return_sequences > 1:
            raise ValueError(
                f"sampling: num_return_sequences is {self.num_return_sequences}, but the method, "
                f"{self.settings['method']}, ranks sequences itself and gives its n_best; set --method.n_best instead"
            )
        if not method.draws and self.num_return_sequences > 1:
            raise ValueError(
                f"sampling: num_return_sequences is {self.num_return_sequences}, but the method, "
                f"{self.settings['method']}, draws nothing, so all of them would be the same; choose a method that "
                "does, or ask for one"
            )

    def resolve(self, *, temperature: float, max_new_tokens: int | None = None) -> "GenerationOptions":
        """The same with what a model chooses where nothing was asked for.

        Raises:
            ValueError: several sequences would all be the same.
        """
        found = replace(
            self,
            max_new_tokens=max_new_tokens if self.max_new_tokens is None else self.max_new_tokens,
            temperature=temperature if self.temperature is None else self.temperature,
        )
        if found.num_return_sequences > 1 and found.temperature == 0:
            raise ValueError(
                f"sampling: num_return_sequences is {found.num_return_sequences}, but at temperature 0 all of them "
                "would be the same; give a temperature above 0, or a method that ranks sequences, such as BeamSearch"
            )
        return found

    def build_params(self, *, end: int | None = None, stop: Callable[[int, int], bool] | None = None) -> SamplingParams:
        """The options as methods take them, the length and the seed apart, which each request has.

        Args:
            end: token with which a text ends. None = none.
            stop: see `SamplingParams`.
        """
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            filters=self._made_filters(),
            end=end,
            stop=stop,
            batch=self.batch,
            window=self.window,
        )

    def build_method(self) -> Method:
        """The method, made anew."""
        return Sample() if self.method is None else self.method()

    @property
    def sequences(self) -> int:
        """Sequences that answer each prompt."""
        return self.build_method().sequences * self.num_return_sequences

    @property
    def settings(self) -> dict[str, Any]:
        """The options as plain values, for those who read results; the batch changes none."""
        plain = {name: value for name, value in vars(self).items() if name not in ("batch", "log_probs")}
        return plain | {
            "filters": [repr(each) for each in self._made_filters()[: len(self.filters)]],
            "method": _described(self.method or Sample),
            "stop": list(self.stop),
        }

    def _made_filters(self) -> list[Filter]:
        made = [make() for make in self.filters]
        if self.top_k is not None:
            made.append(TopK(self.top_k))
        if self.top_p is not None:
            made.append(TopP(self.top_p))
        if self.min_p is not None:
            made.append(MinP(self.min_p))
        return made


def _described(make: MethodFactory) -> str:
    """The method that is made, with its options."""
    method, given = make(), getattr(make, "keywords", {})
    options = {
        name: getattr(method, name, given.get(name, option.default))
        for name, option in inspect.signature(type(method)).parameters.items()
    }
    return f"{type(method).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"
