"""Sources in, targets out."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.data.pairs.source_files import Source
from lightning_xt.data.prompt_files import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.requests import Request
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import (
    DecodingSetup,
    GenerationSession,
    PromptCompletions,
    TextGenerator,
    explain_out_of_memory,
)
from lightning_xt.models.encoder_decoder import EncoderDecoder, check_mask

GREEDY = GenerationOptions()


class Translator(TextGenerator):
    """Answers sources with an encoder-decoder, each source read once.

    Args:
        network: what answers; it decodes in evaluation mode and is left as it was.
        source_tokenizer: turns sources into ids.
        target_tokenizer: turns ids into targets.
        vocab: the special ids of both.
        max_source_ids: ids of a source that are read, the end id included. None = as many as the network's positions.
        decoding: what takes the decoder's place.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        vocab: dict[str, int | None],
        max_source_ids: int | None = None,
        decoding: DecodingSetup | None = None,
    ) -> None:
        self.network, self.decoding = network, DecodingSetup() if decoding is None else decoding
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.start, self.end = vocab["start"], vocab["end"]
        self.pad = vocab["pad"] or 0
        limits = [each for each in (max_source_ids, network.encoder.max_length) if each is not None]
        self.most = min(limits, default=None)

    def decode(
        self,
        src: Int[Tensor, "b m"],
        src_mask: Bool[Tensor, "b m"] | None,
        *,
        starts: Int[Tensor, "b s"] | None = None,
        max_new_tokens: int | None = None,
        sampling: GenerationOptions = GREEDY,
    ) -> Int[Tensor, "b n"]:
        """The ids of an answer to each source, the end token included, padded after it.

        Args:
            src: source ids.
            src_mask: True where a source id is real. None = everywhere.
            starts: what each answer begins with. None = the start token.
            max_new_tokens: most tokens to produce. None = twice those of each source, and 32 more.
            sampling: how tokens are chosen; greedily unless it has a temperature. Row r draws with the seed and r more.
        """
        self.check(src, src_mask)
        starts = (self._starts(len(src)) if starts is None else starts).to(src.device)
        # What was made for as many rows has room for them.
        sampling = replace(sampling, max_new_tokens=max_new_tokens, batch=max(sampling.batch, len(src)))
        requests = self._requests(src, src_mask, starts, sampling)
        asked = [replace(each, seed=each.seed + row) for row, each in enumerate(requests)]
        session = self.open_session(sampling)
        found = [results[0].tokens for results in session.generate(asked)]
        width = max(map(len, found))
        return torch.tensor([[*ids, *[self.pad] * (width - len(ids))] for ids in found], device=src.device)

    def open_session(self, sampling: GenerationOptions) -> GenerationSession:
        """What decodes, greedily unless the sampling has a temperature."""
        sampling = sampling.resolve(temperature=0.0)
        return GenerationSession(self.network.decoder, self.target_tokenizer, self.end, sampling, self.decoding)

    def stream_text(self, text: str, sampling: GenerationOptions) -> Generator[TextPiece, None, None]:
        """The answer to one source as it becomes certain.

        Raises:
            ValueError: the source is empty, or has words that are unknown.
        """
        if not text.strip():
            raise ValueError('generate needs a source to translate: --prompt "..."')
        ids, _ = self._encoded(text)
        src, src_mask = self._padded([ids])
        (request,) = self._requests(src, src_mask, self._starts(1).to(src.device), sampling)
        return self.open_session(sampling).stream_text(request)

    def find_problem(self, text: str) -> str | None:
        return self._encoded(text)[1]

    def complete_as_dicts(self, sources: Sequence[Source], sampling: GenerationOptions) -> list[dict[str, Any]]:
        """What is answered to each source, and its score: the log-probability of the answer, in nats.

        A source that cannot be read, or that is empty, gets an empty answer; the others do not notice.
        """
        return [each.as_dict(sampling) for each in self._answered(sources, sampling)]

    def translate_texts(self, texts: Sequence[str], sampling: GenerationOptions) -> list[dict[str, Any]]:
        """The same for bare texts."""
        sources = [Source(id=number, text=text, problem=None) for number, text in enumerate(texts)]
        return self.complete_as_dicts(sources, sampling)

    def complete(self, prompts: Sequence[Prompt], sampling: GenerationOptions) -> list[PromptCompletions]:
        sources = [Source(id=each["id"], text=each["prompt"], problem=None) for each in prompts]
        return self._answered(sources, sampling)

    def _answered(self, sources: Sequence[Source], sampling: GenerationOptions) -> list[PromptCompletions]:
        results = [
            PromptCompletions("", [], {"id": each["id"], "source": each["text"] or "", "problem": each["problem"]})
            for each in sources
        ]
        readable: dict[int, list[int]] = {}
        for number, source in enumerate(sources):
            if source["text"] is None or not source["text"].strip():
                continue
            try:
                readable[number], problem = self._encoded(source["text"])
            except ValueError as error:
                problem = str(error)
            results[number].metadata["problem"] = problem and f"line {source['id'] + 1}: {problem}"
        if readable:
            src, src_mask = self._padded(list(readable.values()))
            requests = self._requests(src, src_mask, self._starts(len(src)).to(src.device), sampling)
            for number, answers in zip(readable, self.open_session(sampling).complete(requests), strict=True):
                results[number].completions.extend(answers)
        return results

    def _requests(
        self, src: Tensor, src_mask: Tensor | None, starts: Tensor, sampling: GenerationOptions
    ) -> list[Request]:
        """What is asked of decoding; the same seed for all, so that no answer depends on those beside it."""
        limits = self._limits(src, src_mask, starts.shape[1], sampling.max_new_tokens)
        known = self._read(src, src_mask, sampling.batch)
        return [
            Request(prompt=start, max_new_tokens=limit, seed=sampling.seed, inputs=inputs)
            for start, limit, inputs in zip(starts, limits.tolist(), known, strict=True)
        ]

    def _read(self, src: Tensor, src_mask: Tensor | None, batch: int) -> list[Inputs]:
        """What the decoder is to know of each source; those of about the same length are read together."""
        mask = torch.ones_like(src, dtype=torch.bool) if src_mask is None else src_mask
        # One past the last id that is real.
        widths = (mask * torch.arange(1, src.shape[1] + 1, device=src.device)).amax(dim=1).tolist()
        order = sorted(range(len(widths)), key=widths.__getitem__)
        known: dict[int, Inputs] = {}
        was_training = self.network.training
        self.network.train(False)
        try:
            for first in range(0, len(order), batch):
                rows = order[first : first + batch]
                width = widths[rows[-1]]
                asked = f"read {len(rows)} sources of {width} tokens at once"
                real = mask[rows, :width]
                with torch.no_grad(), explain_out_of_memory(asked, "shorten them"):
                    read = self.network.encode(src[rows, :width], None if bool(real.all()) else real)
                context = read.require("context", self)
                known |= {row: _trimmed(one, mask[row, : widths[row]]) for row, one in zip(rows, context, strict=True)}
        finally:
            self.network.train(was_training)
        return [known[row] for row in range(len(widths))]

    def _encoded(self, text: str) -> tuple[list[int], str | None]:
        """The ids of a source as the model was trained to read them, and what was left out."""
        ids, end = self.source_tokenizer.encode(text), self.source_tokenizer.end
        closing_ids = [] if end is None else [end]
        if self.most is None or len(ids) + len(closing_ids) <= self.most:
            return [*ids, *closing_ids], None
        kept = self.most - len(closing_ids)
        return [*ids[:kept], *closing_ids], f"it has {len(ids)} tokens; only the first {kept} were read (max_length)"

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        device = self.network.encoder.token_embedding.weight.device
        width = max(map(len, rows))
        src = torch.tensor([[*row, *[self.pad] * (width - len(row))] for row in rows], device=device)
        lengths = torch.tensor([[len(row)] for row in rows], device=device)
        return src, torch.arange(width, device=device) < lengths

    def _starts(self, rows: int) -> Int[Tensor, "b 1"]:
        if self.start is None:
            raise ValueError("the vocabulary has no start token; give generate its start_tokens")
        return torch.full((rows, 1), self.start)

    def _limits(
        self, src: Tensor, src_mask: Tensor | None, starts: int, max_new_tokens: int | None
    ) -> Int[Tensor, " b"]:
        """Most tokens that each row may produce."""
        if max_new_tokens is not None:
            return torch.full((len(src),), max_new_tokens, device=src.device)
        most = self.network.decoder.max_length
        if most is not None and starts >= most:
            raise ValueError(
                f"{starts} start tokens leave no room for an answer, because the decoder's positions reach only {most} "
                "(max_length); give fewer"
            )
        read = torch.full((len(src),), src.shape[1], device=src.device) if src_mask is None else src_mask.sum(dim=1)
        limits: Tensor = 2 * read + 32
        return limits if most is None else limits.clamp(max=most - starts)

    def check(self, src: Tensor, src_mask: Tensor | None) -> None:
        """Raises a ValueError for sources that are empty, or of no such vocabulary, and for masks that are none."""
        check_mask(src, src_mask)
        size = self.network.encoder.vocab_size
        if src.numel() == 0 or (src_mask is not None and not bool(src_mask.any(dim=1).all())):
            raise ValueError("a source is empty, or all of it is padding; give each at least one token")
        low, high = int(src.min()), int(src.max())
        if low < 0 or high >= size:
            wrong = low if low < 0 else high
            raise ValueError(f"a source has token {wrong}, outside the vocabulary of 0 to {size - 1}")


def _trimmed(context: Float[Tensor, "m c"], mask: Bool[Tensor, " n"]) -> Inputs:
    """What is known of one source, without what filled it up behind its end."""
    return Inputs(context=context[None, : len(mask)], context_mask=None if bool(mask.all()) else mask[None])


def cut_at_end(ids: Sequence[int], end: int | None) -> list[int]:
    """What stands before the end token; everything where there is none."""
    ids = list(ids)
    return ids[: ids.index(end)] if end is not None and end in ids else ids
