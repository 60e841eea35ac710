"""Filling of gaps in texts by a masked language model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.data.prompt_files import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.batching.row_state import pad_rows
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.models.encoder_with_head import EncoderWithHead

GAP = "[MASK]"
"""Text that stands for one hidden token."""
CANDIDATES = 5
"""Most likely tokens that are reported for each gap by default."""


class GapFiller:
    """Filler of gaps: `[MASK]` in a text stands for one token, and each gap is filled from the visible text alone.

    `trained_length` is the number of tokens of the sequences that the model was trained on. None = unknown.
    """

    def __init__(self, model: EncoderWithHead, tokenizer: Tokenizer, trained_length: int | None = None) -> None:
        self.model, self.tokenizer, self.trained_length = model, tokenizer, trained_length

    def encode(self, text: str) -> list[int]:
        """Encode a text, its gaps as the mask token; ValueError if it has no gap, or more tokens than positions."""
        first, *others = text.split(GAP)
        if not others:
            raise ValueError(f"the prompt {text!r:.60} has no gap to fill; put {GAP} in the place of a token")
        ids = self.tokenizer.encode_prompt(first)
        for each in others:
            ids += [self.model.mask_token, *self.tokenizer.encode(each)]
        limit = self.model.max_length
        if limit is not None and len(ids) > limit:
            raise ValueError(
                f"the prompt {text!r:.60} has {len(ids)} tokens, but the model's positions reach only {limit} "
                "(max_length); shorten it"
            )
        return ids

    def find_excess(self, texts: Sequence[str]) -> str | None:
        """Return a sentence about texts longer than the training data; None if there is none."""
        longest = max((len(self.encode(text)) for text in texts), default=0)
        if self.trained_length is None or longest <= self.trained_length * 9 // 8:
            return None
        return (
            f"prompts reach {longest} tokens, but the model was trained on sequences of {self.trained_length}, and "
            "is worse at longer ones; shorten them"
        )

    @torch.no_grad()
    def fill(self, prompts: Sequence[Prompt], candidates: int | None = None, batch: int = 64) -> list[dict[str, Any]]:
        """Fill the gaps of each prompt, all at once.

        Args:
            prompts: texts with gaps.
            candidates: most likely tokens to report for each gap. None = 5.
            batch: most texts in one forward; no result depends on it.

        Returns:
            For each prompt its `id`, `prompt`, `text` with the most likely token in each gap, and `gaps`: for each gap
            its most likely tokens, the best first, with `text`, `token` (the id) and `probability`.

        Raises:
            ValueError: a prompt has no gap, or is too long.
        """
        rows = [self.encode(prompt["prompt"]) for prompt in prompts]
        filled = []
        with eval_mode(self.model):
            for first in range(0, len(rows), batch):
                together = slice(first, first + batch)
                scores = self._score(rows[together])
                for prompt, ids, probabilities in zip(prompts[together], rows[together], scores, strict=True):
                    filled.append(self._report(prompt, ids, probabilities, candidates or CANDIDATES))
        return filled

    def _score(self, rows: list[list[int]]) -> Float[Tensor, "b k v"]:
        """Return the probability of each token in each gap, the gaps of a row padded on the right."""
        device, mask = self.model.encoder.token_embedding.weight.device, self.model.mask_token
        places = pad_rows([[place for place, token in enumerate(row) if token == mask] for row in rows], device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        tokens = pad_rows(rows, device)
        padding = torch.arange(tokens.shape[1], device=device) >= lengths[:, None]
        logits = self.model(tokens, places=places, inputs=Inputs(hidden_tokens=padding)).float()
        banned = [*self.tokenizer.unused, *([] if self.tokenizer.end is None else [self.tokenizer.end])]
        if banned and self.tokenizer.vocab_size == self.model.vocab_size:
            logits[..., banned] = -torch.inf
        return logits.softmax(dim=-1)

    def _report(
        self, prompt: Prompt, ids: list[int], probabilities: Float[Tensor, "k v"], candidates: int
    ) -> dict[str, Any]:
        best = probabilities.topk(min(candidates, self.model.vocab_size))
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        gaps, filled = [], []
        for token in ids[0 if self.tokenizer.start is None else 1 :]:
            filled.append(token)
            if token == self.model.mask_token:
                chosen, values = next(found)
                filled[-1] = chosen[0]
                gaps.append([self._describe(*each) for each in zip(chosen, values, strict=True) if each[1] > 0])
        return {"id": prompt["id"], "prompt": prompt["prompt"], "text": self.tokenizer.decode(filled), "gaps": gaps}

    def _describe(self, token: int, probability: float) -> dict[str, Any]:
        return {"text": self.tokenizer.spell(token), "token": token, "probability": float(f"{probability:.4g}")}
