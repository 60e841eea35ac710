from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lightning_xt.generation.batching.row_state import RowState, pad_rows
from lightning_xt.generation.methods.speculative_decoding import Drafter, SpeculativeDecoding
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.generation.search.speculated_rows import CachedModel, Moves, TrackedRow, sample_steps
from lightning_xt.system.option_checks import check_option


class Draft(SpeculativeDecoding):
    """Speculative decoding with a draft model that samples with the same random numbers as its target.

    Leviathan et al., 2022. https://arxiv.org/abs/2211.17192
    Departs from it in that drafts are not accepted by chance: the completion equals that of plain decoding, token for
    token, with the same seed, whatever the draft model is. The draft model gets the same inputs.

    Args:
        draft: a model of the same vocabulary.
        ahead: most tokens that it proposes before they are verified.
    """

    rereads_prefix: ClassVar = False

    def __init__(self, draft: Autoregressive, ahead: int = 4) -> None:
        check_option("method: Draft", "ahead", ahead, least=1)
        super().__init__(ahead)
        self.draft = draft

    def check(self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams) -> None:
        """Raise a ValueError for a draft of another vocabulary, with too few positions, or that cannot roll back."""
        super().check(model, requests, params)
        if self.draft.vocab_size != model.vocab_size:
            raise ValueError(
                f"the draft has a vocabulary of {self.draft.vocab_size} tokens and the model one of "
                f"{model.vocab_size}; give a draft that was trained with the same tokenizer"
            )
        limit = self.draft.max_length
        longest = max((request.total_length for request in requests), default=0)
        if limit is not None and longest > limit:
            raise ValueError(
                f"a prompt and its completion may have {longest} tokens, but the draft's positions reach only {limit} "
                "(max_length); ask for fewer tokens, or decode without the draft"
            )

    def list_models(self, model: Autoregressive) -> list[Autoregressive]:
        return [model, self.draft]

    def make_drafter(self, rows: Sequence[TrackedRow], params: SamplingParams) -> Drafter:
        return _ModelDrafter(CachedModel(self.draft, rows, params.window, self.ahead + 1), params)


class _ModelDrafter:
    """Drafter that samples from a draft model with the prompts prefilled."""

    def __init__(self, model: CachedModel, params: SamplingParams) -> None:
        self.model, self.params = model, params

    def propose(self, rows: Sequence[TrackedRow], state: RowState, most: Sequence[int]) -> list[list[int]]:
        """Sample as many tokens as any row can use; cut each row's to its own limit."""
        pending = self.model.list_pending(rows)
        self.model.extend(pad_rows(pending, state.tokens.device), [len(tokens) for tokens in pending])
        sampled: list[Tensor] = []
        for step in range(max(most)):
            if step > 0:
                self.model.extend(sampled[-1])
            sampled.append(sample_steps(state, self.model.logits, self.params, offset=step)[0])
        tokens = torch.cat(sampled, dim=1).tolist()
        return [row[:number] for row, number in zip(tokens, most, strict=True)]

    def keep(self, rows: Sequence[TrackedRow], moves: Moves) -> None:
        """Roll back the tokens that were not accepted."""
        self.model.keep(rows, moves)
