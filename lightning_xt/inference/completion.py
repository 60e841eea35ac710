"""Prompts in, what a language model continues them with out."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from lightning_xt.data.prompt_files import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request
from lightning_xt.inference.detokenizer import Piece
from lightning_xt.inference.generation_options import Sampling
from lightning_xt.inference.text_generator import Answered, Answerer, Answering, Decoding

LENGTH = 256
"""Tokens to produce unless told otherwise."""


class Continuer(Answering):
    """Continues prompts with a language model.

    Args:
        model: what scores the next token.
        tokenizer: turns text into ids and back.
        device: where the model reads.
        decoding: what takes the model's place, or stands beside it.
    """

    def __init__(
        self, model: Autoregressive, tokenizer: Tokenizer, device: torch.device, decoding: Decoding | None = None
    ) -> None:
        self.decoding = Decoding() if decoding is None else decoding
        self.model = model if self.decoding.model is None else self.decoding.model
        self.tokenizer, self.device = tokenizer, device

    def with_model(self, model: Autoregressive) -> "Continuer":
        """The same with another model."""
        return Continuer(model, self.tokenizer, self.device, replace(self.decoding, model=model))

    def answerer(self, sampling: Sampling) -> Answerer:
        """What decodes, with what a language model chooses where nothing was asked for."""
        sampling = sampling.resolved(max_new_tokens=LENGTH, temperature=1.0)
        return Answerer(self.model, self.tokenizer, self.tokenizer.end, sampling, self.decoding)

    def request(self, prompt: str | Sequence[int], sampling: Sampling) -> Request:
        """What is asked of decoding: every prompt has the same seed, so that none depends on those beside it.

        Args:
            prompt: a text, or ids.
            sampling: how it is continued.
        """
        ids = self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
        tokens = torch.tensor(ids, dtype=torch.long, device=self.device)
        return Request(prompt=tokens, max_new_tokens=sampling.max_new_tokens or LENGTH, seed=sampling.seed)

    def pieces(self, text: str, sampling: Sampling) -> Generator[Piece, None, None]:
        """The prompt and what follows it, as it becomes certain.

        Raises:
            ValueError: the prompt is empty, and the tokenizer has no id that opens a text; or it is too long.
        """
        if not self.tokenizer.encode_prompt(text):
            raise ValueError('generate needs a prompt of at least one character: --prompt "..."')
        answerer = self.answerer(sampling)
        # Nothing is shown of a prompt that cannot be continued.
        with closing(answerer.pieces(self.request(text, answerer.sampling))) as pieces:
            if text:
                yield Piece(text)
            yield from pieces

    def answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[dict[str, Any]]:
        """For each prompt its id, the prompt, the text that follows it, its score and the settings.

        Raises:
            ValueError: a prompt is empty, and the tokenizer has no id that opens a text; or one is too long.
        """
        return [each.plain(sampling) for each in self.answered(prompts, sampling)]

    def answered(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Answered]:
        answerer = self.answerer(sampling)
        requests = [self.request(each["prompt"], answerer.sampling) for each in prompts]
        for prompt, request in zip(prompts, requests, strict=True):
            if len(request.prompt) == 0:
                raise ValueError(
                    f"prompt {prompt['id'] + 1} is empty, and the model has no token that opens a text; write at least "
                    "one character"
                )
        settings = answerer.sampling.settings | self.decoding.settings
        return [
            Answered(prompt["prompt"], answers, {"id": prompt["id"], "prompt": prompt["prompt"]}, settings)
            for prompt, answers in zip(prompts, answerer.answers(requests), strict=True)
        ]
