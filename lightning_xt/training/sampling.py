"""How a model is sampled: the options that commands and callbacks share."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from lightning_xt.generation.engine import standard_filters


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Options of sampling.

    Args:
        length: tokens to produce. None = 256; of an encoder-decoder at most twice those of the source and 32 more.
        temperature: divides the logits before anything else; below 1 is more certain, 0 always takes the likeliest.
            None = 1, of an encoder-decoder 0.
        top_k: only the so many likeliest tokens may be drawn. None = any.
        top_p: only the likeliest tokens that together have this share of the probability may be drawn. None = any.
        min_p: only tokens at least this share as likely as the likeliest may be drawn. None = any.
        seed: where the random numbers start.
    """

    length: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise ValueError(f"sampling: length is {self.length}; it must be at least 1 token")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"sampling: temperature is {self.temperature}; it must be at least 0")
        # Refuses what is out of range, before anything is trained.
        standard_filters(top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    def resolved(self, *, temperature: float, length: int | None = None) -> "Sampling":
        """The same with what a model chooses where nothing was asked for."""
        return replace(
            self,
            length=length if self.length is None else self.length,
            temperature=temperature if self.temperature is None else self.temperature,
        )

    @property
    def choices(self) -> dict[str, Any]:
        """The options as `generation.engine` takes them, the length apart."""
        return {name: value for name, value in asdict(self).items() if name != "length"}
