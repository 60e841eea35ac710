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
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import DecodingSetup, GenerationSession, PromptCompletions, TextGenerator

LENGTH = 256
"""Tokens to produce unless told otherwise."""


class TextCompleter(TextGenerator):
    """Continues prompts with a language model.

    Args:
        model: what scores the next token.
        tokenizer: turns text into ids and back.
        device: where the model reads.
        decoding: what takes the model's place, or stands beside it.
    """

    def __init__(
        self, model: Autoregressive, tokenizer: Tokenizer, device: torch.device, decoding: DecodingSetup | None = None
    ) -> None:
        self.decoding = DecodingSetup() if decoding is None else decoding
        self.model = model if self.decoding.model is None else self.decoding.model
        self.tokenizer, self.device = tokenizer, device

    def with_model(self, model: Autoregressive) -> "TextCompleter":
        """The same with another model."""
        return TextCompleter(model, self.tokenizer, self.device, replace(self.decoding, model=model))

    def open_session(self, sampling: GenerationOptions) -> GenerationSession:
        """What decodes, with what a language model chooses where nothing was asked for."""
        sampling = sampling.resolve(max_new_tokens=LENGTH, temperature=1.0)
        return GenerationSession(self.model, self.tokenizer, self.tokenizer.end, sampling, self.decoding)

    def build_request(self, prompt: str | Sequence[int], sampling: GenerationOptions) -> Request:
        """What is asked of decoding: every prompt has the same seed, so that none depends on those beside it.

        Args:
            prompt: a text, or ids.
            sampling: how it is continued.
        """
        ids = self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
        tokens = torch.tensor(ids, dtype=torch.long, device=self.device)
        return Request(prompt=tokens, max_new_tokens=sampling.max_new_tokens or LENGTH, seed=sampling.seed)

    def stream_text(self, text: str, sampling: GenerationOptions) -> Generator[TextPiece, None, None]:
        """The prompt and what follows it, as it becomes certain.

        Raises:
            ValueError: the prompt is empty, and the tokenizer has no id that opens a text; or it is too long.
        """
        if not self.tokenizer.encode_prompt(text):
            raise ValueError('generate needs a prompt of at least one character: --prompt "..."')
        session = self.open_session(sampling)
        # Nothing is shown of a prompt that cannot be continued.
        with closing(session.stream_text(self.build_request(text, session.sampling))) as pieces:
            if text:
                yield TextPiece(text)
            yield from pieces

    def complete_as_dicts(self, prompts: Sequence[Prompt], sampling: GenerationOptions) -> list[dict[str, Any]]:
        """For each prompt its id, the prompt, the text that follows it, its score and the settings.

        Raises:
            ValueError: a prompt is empty, and the tokenizer has no id that opens a text; or one is too long.
        """
        return [each.as_dict(sampling) for each in self.complete(prompts, sampling)]

    def complete(self, prompts: Sequence[Prompt], sampling: GenerationOptions) -> list[PromptCompletions]:
        session = self.open_session(sampling)
        requests = [self.build_request(each["prompt"], session.sampling) for each in prompts]
        for prompt, request in zip(prompts, requests, strict=True):
            if len(request.prompt) == 0:
                raise ValueError(
                    f"prompt {prompt['id'] + 1} is empty, and the model has no token that opens a text; write at least "
                    "one character"
                )
        settings = session.sampling.settings | self.decoding.settings
        return [
            PromptCompletions(prompt["prompt"], answers, {"id": prompt["id"], "prompt": prompt["prompt"]}, settings)
            for prompt, answers in zip(prompts, session.complete(requests), strict=True)
        ]
