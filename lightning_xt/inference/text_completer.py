"""Completion of prompts by a language model."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.extent import check_lengths
from lightning_xt.core.inputs import Inputs
from lightning_xt.data.prompt_files import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.batching.row_state import pad_rows
from lightning_xt.generation.engine import make_requests
from lightning_xt.generation.noise import derive_seed
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.request_checks import check_rows
from lightning_xt.generation.requests import Request
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import DecodingSetup, GenerationSession, PromptCompletions, TextGenerator

MAX_NEW_TOKENS = 256
"""Default of `max_new_tokens`."""


class TextCompleter(TextGenerator):
    """Completer of prompts by a model on a device; the setup may replace the model and the method.

    `trained_length` is the number of tokens of the sequences that the model was trained on. None = unknown. With
    `visible_prompts` all tokens of a prompt see all of it, as a prefix language model is trained.
    """

    kind = "language_model"

    def __init__(
        self,
        model: Autoregressive,
        tokenizer: Tokenizer,
        device: torch.device,
        setup: DecodingSetup | None = None,
        trained_length: int | None = None,
        visible_prompts: bool = False,
    ) -> None:
        self.setup = DecodingSetup() if setup is None else setup
        self.model = model if self.setup.model is None else self.setup.model
        self.tokenizer, self.device, self.trained_length = tokenizer, device, trained_length
        self.visible_prompts = visible_prompts

    @property
    def output_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    @property
    def vocab_size(self) -> int:
        return self.model.vocab_size

    def replace_model(self, model: Autoregressive) -> "TextCompleter":
        """Return a completer with another model."""
        setup = replace(self.setup, model=model)
        return TextCompleter(
            model, self.tokenizer, self.device, setup, self.trained_length, visible_prompts=self.visible_prompts
        )

    def find_excess(self, texts: Sequence[str], options: GenerationOptions) -> str | None:
        trained = self.trained_length
        longest = max((len(self.tokenizer.encode_prompt(text)) for text in texts), default=0)
        length = longest + (options.max_new_tokens or MAX_NEW_TOKENS)
        # A few tokens more cost too little to be measured.
        if trained is None or length <= trained * 9 // 8 or (options.window or length) <= trained:
            return None
        # No window limits a running state.
        way = "" if self.model.recurrences else f", or --window {trained}"
        return (
            f"completions may reach {length} tokens, but the model was trained on sequences of {trained}, and text "
            f"beyond that gets worse; give a smaller --max_new_tokens{way}"
        )

    def open_session(self, options: GenerationOptions) -> GenerationSession:
        """Make a session, with the defaults of a language model for unset options."""
        options = options.resolve(max_new_tokens=MAX_NEW_TOKENS, temperature=1.0)
        return GenerationSession(self.model, self.tokenizer, self.tokenizer.end, options, self.setup)

    def build_request(self, prompt: str | Sequence[int], options: GenerationOptions, repeat: int = 0) -> Request:
        """Build the request of a prompt, text or ids; its random numbers depend on its text, seed and `repeat` only."""
        ids = self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
        tokens = torch.tensor(ids, dtype=torch.long, device=self.device)
        limit = options.max_new_tokens or MAX_NEW_TOKENS
        seed = derive_seed(options.seed, self.tokenizer.decode(ids), repeat)
        inputs = self._make_inputs(torch.tensor([len(ids)], device=self.device))
        after = ids[-1] if ids else None
        return Request(prompt=tokens, max_new_tokens=limit, seed=seed, inputs=inputs, after=after)

    def decode(
        self, prompt: Int[Tensor, "b n"], lengths: Int[Tensor, " b"] | None, options: GenerationOptions
    ) -> Int[Tensor, "b t"]:
        """Return the ids that continue each prompt, end token included, padded after it; row r samples with seed + r.

        Args:
            prompt: ids; shorter rows are padded on the right.
            lengths: tokens of each row without padding. None = all.
            options: generation options.
        """
        check_rows("prompt", prompt)
        if not isinstance(lengths, Tensor):
            check_lengths(lengths, *prompt.shape)
        limit, tokenizer = options.max_new_tokens or MAX_NEW_TOKENS, self.tokenizer
        whole = torch.full((len(prompt),), prompt.shape[1], device=prompt.device) if lengths is None else lengths
        inputs = self._make_inputs(whole.to(prompt.device))
        requests = make_requests(prompt, limit, lengths=lengths, seed=options.seed, inputs=inputs)
        if options.stop:
            requests = [replace(each, after=int(each.prompt[-1])) if len(each.prompt) else each for each in requests]
        results = self.open_session(options.widen(len(prompt))).generate(requests)
        return pad_rows([each[0].tokens for each in results], prompt.device, tokenizer.pad or 0)

    def _make_inputs(self, lengths: Int[Tensor, " b"]) -> Inputs | None:
        """Make the inputs of prompts of these lengths."""
        return Inputs(visible_prefix=lengths) if self.visible_prompts else None

    def stream_text(self, text: str, options: GenerationOptions, repeat: int = 0) -> Generator[TextPiece, None, None]:
        """Yield the prompt and its completion, once certain; ValueError if too long, or empty without a start token."""
        if not self.tokenizer.encode_prompt(text):
            raise ValueError('generate needs a prompt of at least one character: --prompt "..."')
        session = self.open_session(options)
        # An invalid prompt is refused before any of it is shown.
        with closing(session.stream_text(self.build_request(text, session.options, repeat))) as pieces:
            if text:
                yield TextPiece(text)
            yield from pieces

    def complete_as_dicts(self, prompts: Sequence[Prompt], options: GenerationOptions) -> list[dict[str, Any]]:
        """Return each prompt's id, prompt, completion with score, and settings; errors as in `stream_text`."""
        return [each.as_dict(options) for each in self.complete(prompts, options)]

    def complete(self, prompts: Sequence[Prompt], options: GenerationOptions) -> list[PromptCompletions]:
        session = self.open_session(options)
        requests = [self.build_request(each["prompt"], session.options, each.get("repeat", 0)) for each in prompts]
        for prompt, request in zip(prompts, requests, strict=True):
            if len(request.prompt) == 0:
                raise ValueError(
                    f"prompt {prompt['id'] + 1} is empty, and the model has no start token; write at least one "
                    "character"
                )
        settings = session.options.settings | self.setup.settings
        return [
            PromptCompletions(prompt["prompt"], completions, {"id": prompt["id"], "prompt": prompt["prompt"]}, settings)
            for prompt, completions in zip(prompts, session.complete(requests), strict=True)
        ]
