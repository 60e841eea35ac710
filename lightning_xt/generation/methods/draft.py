from collections.abc import Generator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lightning_xt.generation.batching.row_state import RowState
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.generation.search.speculated_rows import CachedModel, Moves, TrackedRow, draw_steps, padded
from lightning_xt.generation.search.speculation import Drafter, SpeculativeDecoding
from lightning_xt.system.option_checks import check_option


class Draft(SpeculativeDecoding):
    """Lets a smaller model guess: it draws with the same random numbers as the model that decodes.

    Leviathan et al., 2022. https://arxiv.org/abs/2211.17192
    Departs from it in that guesses are not accepted by chance: the text is that of plain decoding, token for token,
    with the same seed, whatever the draft is. The draft is given the same inputs.

    Args:
        draft: a model of the same vocabulary.
        ahead: most tokens that it draws before they are read.
    """

    rereads_prefix: ClassVar = False

    def __init__(self, draft: Autoregressive, ahead: int = 4) -> None:
        check_option("method: Draft", "ahead", ahead, least=1)
        super().__init__(ahead)
        self.draft = draft

    def check(self, model: Autoregressive, requests: Sequence[Request]) -> None:
        """Raises a ValueError for a draft of another vocabulary, or whose positions do not reach as far."""
        if self.draft.vocab_size != model.vocab_size:
            raise ValueError(
                f"the draft has a vocabulary of {self.draft.vocab_size} tokens and the model one of "
                f"{model.vocab_size}; give a draft that was trained with the same tokenizer"
            )
        limit = self.draft.max_length
        texts = [TrackedRow(0, request) for request in requests]
        longest = max((text.soft + text.longest for text in texts), default=0)
        if limit is not None and longest > limit:
            raise ValueError(
                f"a prompt and its answer may have {longest} tokens, but the draft's positions reach only {limit} "
                "(max_length); ask for fewer tokens, or decode without the draft"
            )

    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        """Tokens of all requests as they become certain, from as many rows at once as the choices allow."""
        return self._with_draft(super().__call__(model, requests, choices))

    def guesser(self, texts: Sequence[TrackedRow], choices: SamplingParams) -> Drafter:
        """What guesses for these rows, whose prompts are known."""
        return _Drafted(CachedModel(self.draft, texts, choices.window, self.ahead + 1), choices)

    def _with_draft(self, drawn: Generator[GeneratedToken, None, None]) -> Generator[GeneratedToken, None, None]:
        with eval_mode(self.draft):
            yield from drawn


class _Drafted:
    """What a draft draws.

    Args:
        reader: the draft, which has read the prompts.
        choices: how tokens are chosen.
    """

    def __init__(self, reader: CachedModel, choices: SamplingParams) -> None:
        self.reader = reader
        self.choices = choices

    def guess(self, texts: Sequence[TrackedRow], rows: RowState, most: Sequence[int]) -> list[list[int]]:
        """As many tokens for each row as the row that can use most wants, cut to what it can use itself."""
        unread = self.reader.unread(texts)
        self.reader.read(padded(unread, rows.tokens.device), [len(tokens) for tokens in unread])
        drawn: list[Tensor] = []
        for step in range(max(most)):
            if step > 0:
                self.reader.read(drawn[-1])
            drawn.append(draw_steps(rows, self.reader.logits, self.choices, beyond=step))
        tokens = torch.cat(drawn, dim=1).tolist()
        return [row[:number] for row, number in zip(tokens, most, strict=True)]

    def keep(self, texts: Sequence[TrackedRow], moves: Moves) -> None:
        """Forgets what was drawn in vain."""
        self.reader.keep(texts, moves)
