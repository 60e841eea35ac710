"""Hypotheses of a beam search, running and ended."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(eq=False)
class Hypotheses:
    """Hypotheses of several requests, the same number for each.

    Args:
        tokens: ids, prompt first; later slots are free.
        log_probs: log-probability of each generated token under the model; later slots are free.
        lengths: generated tokens.
        newest: last token.
        parents: number of the hypothesis of the request that each one extends.
        totals: log-probability of each hypothesis, after temperature and filters.
        ranks: higher is better; minus infinity = the place is empty.
        paths: number that two hypotheses rarely share.
    """

    tokens: Int[Tensor, "requests beams t"]
    log_probs: Float[Tensor, "requests beams n"]
    lengths: Int[Tensor, "requests beams"]
    newest: Int[Tensor, "requests beams"]
    parents: Int[Tensor, "requests beams"]
    totals: Float[Tensor, "requests beams"]
    ranks: Float[Tensor, "requests beams"]
    paths: Int[Tensor, "requests beams"]

    @classmethod
    def make_empty(
        cls,
        tokens: Int[Tensor, "requests t"],
        beams: int,
        longest: int,
        paths: Int[Tensor, " requests"],
        dtype: torch.dtype,
    ) -> "Hypotheses":
        """Make empty places for hypotheses that begin with a prompt."""
        requests, device = len(tokens), tokens.device
        zeros = torch.zeros(requests, beams, dtype=torch.long, device=device)
        empty = torch.full((requests, beams), float("-inf"), dtype=dtype, device=device)
        return cls(
            tokens=tokens[:, None].repeat(1, beams, 1),
            log_probs=torch.zeros(requests, beams, longest, dtype=dtype, device=device),
            lengths=zeros,
            newest=zeros,
            parents=zeros,
            totals=empty,
            ranks=empty.clone(),
            paths=paths[:, None].repeat(1, beams),
        )

    def pick(self, beams: Int[Tensor, "requests picked"]) -> "Hypotheses":
        """Select hypotheses of each request."""
        request = torch.arange(len(beams), device=beams.device)[:, None]
        return Hypotheses(*(each[request, beams] for each in vars(self).values()))

    def rank(self, ranks: Float[Tensor, "requests beams"], number: int) -> "Hypotheses":
        """Select the best hypotheses of each request by new ranks, in order."""
        values, index = ranks.topk(number)
        picked = self.pick(index)
        picked.ranks = values
        picked.totals = picked.totals.where(values > float("-inf"), values)
        return picked

    def join(self, other: "Hypotheses") -> "Hypotheses":
        """Concatenate the hypotheses of both."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))

    def select(self, requests: Int[Tensor, " kept"]) -> "Hypotheses":
        """Select the hypotheses of some requests."""
        return Hypotheses(*(each[requests] for each in vars(self).values()))
