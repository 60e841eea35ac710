"""Texts that a beam search holds, those that go on as well as those that have ended."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(eq=False)
class Hypotheses:
    """Texts of some sentences, equally many of each.

    Args:
        tokens: ids, prompt first; later slots are free.
        log_probs: of each token drawn, under the model; later slots are free.
        lengths: tokens drawn.
        newest: the last of them.
        parents: which text of the sentence each went on from.
        totals: log-probability of each text, after temperature and filters.
        ranks: the higher the better; minus infinity = there is no text in this place.
        paths: a number that hardly two texts share.
    """

    tokens: Int[Tensor, "sentences texts m"]
    log_probs: Float[Tensor, "sentences texts n"]
    lengths: Int[Tensor, "sentences texts"]
    newest: Int[Tensor, "sentences texts"]
    parents: Int[Tensor, "sentences texts"]
    totals: Float[Tensor, "sentences texts"]
    ranks: Float[Tensor, "sentences texts"]
    paths: Int[Tensor, "sentences texts"]

    @classmethod
    def none(
        cls,
        tokens: Int[Tensor, "sentences m"],
        texts: int,
        longest: int,
        paths: Int[Tensor, " sentences"],
        dtype: torch.dtype,
    ) -> "Hypotheses":
        """Places for texts that begin with a prompt, all free."""
        sentences, device = len(tokens), tokens.device
        number = torch.zeros(sentences, texts, dtype=torch.long, device=device)
        none = torch.full((sentences, texts), float("-inf"), dtype=dtype, device=device)
        return cls(
            tokens=tokens[:, None].repeat(1, texts, 1),
            log_probs=torch.zeros(sentences, texts, longest, dtype=dtype, device=device),
            lengths=number,
            newest=number,
            parents=number,
            totals=none,
            ranks=none.clone(),
            paths=paths[:, None].repeat(1, texts),
        )

    def pick(self, texts: Int[Tensor, "sentences picked"]) -> "Hypotheses":
        """Some texts of each sentence."""
        sentence = torch.arange(len(texts), device=texts.device)[:, None]
        return Hypotheses(*(each[sentence, texts] for each in vars(self).values()))

    def best(self, ranks: Float[Tensor, "sentences texts"], number: int) -> "Hypotheses":
        """The best texts of each sentence, in order, once they are ranked by something else."""
        values, index = ranks.topk(number)
        picked = self.pick(index)
        picked.ranks = values
        picked.totals = picked.totals.where(values > float("-inf"), values)
        return picked

    def beside(self, other: "Hypotheses") -> "Hypotheses":
        """The texts of both."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))

    def of(self, sentences: Int[Tensor, " kept"]) -> "Hypotheses":
        """The texts of some sentences."""
        return Hypotheses(*(each[sentences] for each in vars(self).values()))
