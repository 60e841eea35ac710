from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.packed_documents import find_document_starts
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.base import LanguageModelLike, Loss, Objective
from lightning_xt.objectives.content_draws import draw_by_content
from lightning_xt.objectives.cross_entropy import IGNORED, cross_entropy, split_targets
from lightning_xt.system.option_checks import check_option


class PrefixNextToken(Objective):
    """Predict the tokens after a random prefix of each row, which all its tokens see (prefix language model).

    Raffel et al., 2019 (T5), https://arxiv.org/abs/1910.10683; the S-denoiser of UL2, https://arxiv.org/abs/2205.05131
    Each row draws the length of its prefix at every step, whichever process trains on it; of several documents in a
    row, each has a prefix of this length, which is drawn for the longest of them. Tokens that the prefix shows are not
    targets; a prefix of one token shows none. `Inputs(visible_prefix=...)` takes the place of the draw.
    In evaluation the prefix is the context of a window, which an earlier window has predicted: without `stride` the
    evaluation is plain causal, and bits per byte compare with those of other objectives at any stride. So is that of
    separated documents and packed conversations, because it must not depend on what shares a row.
    Generation makes the prompt visible. Parts that look back only are refused.

    Args:
        min_prefix: smallest fraction of a row, or of its longest document, that is its prefix.
        max_prefix: largest fraction; all lengths between are equally likely. The last token is always a target.
    """

    visible_prompts: ClassVar = True

    def __init__(self, shape: ObjectiveShape, *, min_prefix: float = 0.0, max_prefix: float = 1.0) -> None:
        super().__init__()
        where = "objective: PrefixNextToken"
        check_option(where, "min_prefix", min_prefix, least=0, most=1)
        check_option(where, "max_prefix", max_prefix, least=0, most=1)
        if min_prefix > max_prefix:
            raise ValueError(f"{where} has min_prefix {min_prefix}, which is above max_prefix {max_prefix}; swap them")
        self.min_prefix, self.max_prefix = min_prefix, max_prefix
        self.training_only = "visible prefixes of random lengths"

    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b t"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        read, targets = split_targets(tokens)
        counted = targets != IGNORED if scored is None else scored & (targets != IGNORED)
        prefix = self._choose_prefix(read, counted, scored is not None, inputs)
        if prefix is not None:
            given = Inputs() if inputs is None else inputs
            counted = counted & ~_find_visible(read, given, prefix)
            inputs = replace(given, visible_prefix=prefix + given.num_soft_tokens, scored=counted)
        logits, trace = model(read, inputs=inputs, trace=Trace())
        loss = cross_entropy(logits, targets, counted)
        return replace(loss, terms=trace.sum_losses(), logits=logits, memories=trace.memories)

    def _choose_prefix(
        self, read: Int[Tensor, "b n"], counted: Bool[Tensor, "b n"], has_context: bool, inputs: Inputs | None
    ) -> Int[Tensor, " b"] | None:
        """Choose the length of each row's prefix. None = plain causal."""
        if inputs is not None and inputs.visible_prefix is not None:
            return inputs.visible_prefix - inputs.num_soft_tokens
        if self.training:
            return self._draw(read, counted, inputs)
        if not has_context or (inputs is not None and inputs.documents is not None):
            return None
        # Up to the first target that counts.
        index = torch.arange(1, read.shape[1] + 1, device=read.device).expand_as(read)
        return index.masked_fill(~counted, read.shape[1]).amin(dim=1)

    def _draw(self, read: Int[Tensor, "b n"], counted: Bool[Tensor, "b n"], inputs: Inputs | None) -> Int[Tensor, " b"]:
        """Draw the length of each row's prefix, 1 to n, or to the length of the longest document that counts."""
        n = read.shape[1]
        least, most = (max(1, round(fraction * n)) for fraction in (self.min_prefix, self.max_prefix))
        if self.step_seed is None:
            drawn = torch.rand(len(read), device=read.device)
        else:
            drawn = draw_by_content(read, 1, self.step_seed)[0, :, 0]
        if inputs is not None and inputs.documents is not None:
            longest = _find_places(read, inputs).masked_fill(~counted, 0).amax(dim=1)
            first, last = (
                (fraction * longest).round().long().clamp(min=1) for fraction in (self.min_prefix, self.max_prefix)
            )
            return first + torch.minimum((drawn * (last - first + 1)).long(), last - first)
        return least + (drawn * (most - least + 1)).long().clamp(max=most - least)


def _find_places(read: Int[Tensor, "b n"], inputs: Inputs) -> Int[Tensor, "b n"]:
    """Find how many tokens of its document are before each target."""
    index = torch.arange(1, read.shape[1] + 1, device=read.device).expand_as(read)
    if inputs.documents is None or inputs.positions is not None:
        return index
    return index - find_document_starts(inputs.documents)


def _find_visible(read: Int[Tensor, "b n"], inputs: Inputs, prefix: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """Find the targets that the token before them sees."""
    within = torch.ones_like(read, dtype=torch.bool)
    within[:, -1] = False
    if inputs.documents is not None:
        within[:, :-1] = inputs.documents[:, 1:] == inputs.documents[:, :-1]
    return within & (_find_places(read, inputs) < prefix[:, None])
