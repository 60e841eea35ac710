"""Translation of sources by an encoder-decoder."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.data.pairs.source_files import Source
from lightning_xt.data.prompt_files import Prompt, number_prompts
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.batching.row_state import pad_rows
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.noise import derive_seed
from lightning_xt.generation.request_checks import check_rows
from lightning_xt.generation.requests import Request
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.memory_errors import explain_out_of_memory
from lightning_xt.inference.text_generator import (
    DecodingSetup,
    GenerationSession,
    PromptCompletions,
    TextGenerator,
    list_texts,
)
from lightning_xt.models.encoder_decoder import EncoderDecoder, check_mask

GREEDY = GenerationOptions()
Length = TypeVar("Length", int, Tensor)


def limit_target(length: Length) -> Length:
    """Return the most tokens that a translation has by default, from the length of its source."""
    return 2 * length + 32


class Translator(TextGenerator):
    """Translator of sources, each encoded once.

    Args:
        network: encoder-decoder; it decodes in evaluation mode and is left in its mode.
        source_tokenizer: turns sources into ids.
        target_tokenizer: turns ids into targets.
        vocab: special ids of both.
        max_source_ids: most ids of a source, end token included; the rest is ignored. None = the network's positions.
        setup: replacements of the decoder and the method. None = none.
    """

    kind = "encoder_decoder"

    def __init__(
        self,
        network: EncoderDecoder,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        vocab: dict[str, int | None],
        max_source_ids: int | None = None,
        setup: DecodingSetup | None = None,
    ) -> None:
        self.network, self.setup = network, DecodingSetup() if setup is None else setup
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.start, self.end = vocab["start"], vocab["end"]
        self.pad = vocab["pad"] or 0
        limits = [each for each in (max_source_ids, network.encoder.max_length) if each is not None]
        self.max_source_ids = min(limits, default=None)

    @property
    def output_tokenizer(self) -> Tokenizer:
        return self.target_tokenizer

    @property
    def vocab_size(self) -> int:
        return self.network.decoder.vocab_size

    def decode(
        self,
        src: Int[Tensor, "b m"],
        src_mask: Bool[Tensor, "b m"] | None,
        *,
        starts: Int[Tensor, "b starts"] | None = None,
        max_new_tokens: int | None = None,
        options: GenerationOptions = GREEDY,
        seeds: Sequence[int] | None = None,
    ) -> Int[Tensor, "b n"]:
        """Return the ids of each translation, end token included, padded after it.

        Args:
            src: source ids.
            src_mask: True at source ids that are not padding. None = everywhere.
            starts: first ids of each target. None = the start token.
            max_new_tokens: most tokens to generate. None = twice the source's tokens plus 32.
            options: generation options; greedy unless they have a temperature.
            seeds: seed of each row. None = row r samples with seed + r.
        """
        check_rows("src", src)
        self.check(src, src_mask)
        if starts is not None:
            check_rows("start_tokens", starts)
            if len(starts) != len(src):
                raise ValueError(
                    f"start_tokens has {len(starts)} rows, but there are {len(src)} sources; give one row for each"
                )
        starts = self._make_starts(src) if starts is None else starts.to(src.device)
        # Memory that holds the sources' rows at once holds their targets too.
        options = replace(options, max_new_tokens=max_new_tokens).widen(len(src))
        seeds = range(options.seed, options.seed + len(src)) if seeds is None else seeds
        requests = self._make_requests(src, src_mask, starts, seeds, options)
        best = [results[0].tokens for results in self.open_session(options).generate(requests)]
        return pad_rows(best, src.device, self.pad)

    def open_session(self, options: GenerationOptions) -> GenerationSession:
        """Make a session, greedy unless the options have a temperature."""
        options = options.resolve(temperature=0.0)
        return GenerationSession(self.network.decoder, self.target_tokenizer, self.end, options, self.setup)

    def stream_text(self, text: str, options: GenerationOptions, repeat: int = 0) -> Generator[TextPiece, None, None]:
        """Yield the translation of a source once it is certain; ValueError if it is empty, or cannot be encoded."""
        if not text.strip():
            raise ValueError('generate needs a source to translate: --prompt "..."')
        ids, _ = self.tokenize_source(text)
        request = self.build_request(ids, text, options, repeat)
        (inputs,) = self.encode_sources([ids], options.batch)
        return self.open_session(options).stream_text(replace(request, inputs=inputs))

    def find_problem(self, text: str) -> str | None:
        return self.tokenize_source(text)[1]

    def complete_as_dicts(self, sources: Sequence[Source], options: GenerationOptions) -> list[dict[str, Any]]:
        """Return each source's translation with its score: the log-probability in nats, or the method's rank.

        A source that is unreadable or empty gets an empty translation; the others do not depend on it.
        """
        return [each.as_dict(options) for each in self._translate(sources, options)]

    def translate_texts(self, texts: str | Sequence[str], options: GenerationOptions) -> list[dict[str, Any]]:
        """Return the translations of one or several texts, as `complete_as_dicts` does for sources."""
        return [each.as_dict(options) for each in self.complete(number_prompts(list_texts(texts)), options)]

    def complete(self, prompts: Sequence[Prompt], options: GenerationOptions) -> list[PromptCompletions]:
        sources = [
            Source(id=each["id"], text=each["prompt"], problem=None, repeat=each.get("repeat", 0)) for each in prompts
        ]
        return self._translate(sources, options)

    def _translate(self, sources: Sequence[Source], options: GenerationOptions) -> list[PromptCompletions]:
        found = [
            PromptCompletions("", [], {"id": each["id"], "source": each["text"] or "", "problem": each["problem"]})
            for each in sources
        ]
        readable: dict[int, list[int]] = {}
        for number, source in enumerate(sources):
            if source["text"] is None or not source["text"].strip():
                continue
            try:
                readable[number], problem = self.tokenize_source(source["text"])
            except ValueError as error:
                problem = str(error)
            found[number].metadata["problem"] = problem and f"line {source['id'] + 1}: {problem}"
        if readable:
            src, src_mask = self._pad_rows(list(readable.values()))
            chosen = [sources[number] for number in readable]
            seeds = [derive_seed(options.seed, each["text"] or "", each.get("repeat", 0)) for each in chosen]
            requests = self._make_requests(src, src_mask, self._make_starts(src), seeds, options)
            for number, completions in zip(readable, self.open_session(options).complete(requests), strict=True):
                found[number].completions.extend(completions)
        return found

    def build_request(self, ids: list[int], text: str, options: GenerationOptions, repeat: int = 0) -> Request:
        """Build the request of one source without its context, which `encode_sources` makes.

        Args:
            ids: ids of the source.
            text: the source, from which its random numbers are derived.
            options: generation options.
            repeat: number of equal sources before it.
        """
        src, src_mask = self._pad_rows([ids])
        starts = self._make_starts(src)
        (limit,) = self._limit_targets(src, src_mask, starts.shape[1], options.max_new_tokens).tolist()
        seed = derive_seed(options.seed, text, repeat)
        return Request(prompt=starts[0], max_new_tokens=limit, seed=seed, source=src[0])

    def encode_sources(self, rows: Sequence[list[int]], batch: int) -> list[Inputs]:
        """Encode the ids of sources, at most `batch` at once, into the inputs of their requests."""
        return self._encode_sources(*self._pad_rows(list(rows)), batch)

    def _make_requests(
        self, src: Tensor, src_mask: Tensor | None, starts: Tensor, seeds: Sequence[int], options: GenerationOptions
    ) -> list[Request]:
        """Make the requests of decoding."""
        limits = self._limit_targets(src, src_mask, starts.shape[1], options.max_new_tokens)
        encoded = self._encode_sources(src, src_mask, options.batch)
        return [
            Request(prompt=start, max_new_tokens=limit, seed=seed, inputs=inputs, source=source)
            for start, limit, seed, inputs, source in zip(starts, limits.tolist(), seeds, encoded, src, strict=True)
        ]

    def _encode_sources(self, src: Tensor, src_mask: Tensor | None, batch: int) -> list[Inputs]:
        """Return the decoder's inputs for each source; sources of similar lengths are encoded together."""
        mask = torch.ones_like(src, dtype=torch.bool) if src_mask is None else src_mask
        # One past the last id that is not padding.
        widths = (mask * torch.arange(1, src.shape[1] + 1, device=src.device)).amax(dim=1).tolist()
        order = sorted(range(len(widths)), key=widths.__getitem__)
        encoded: dict[int, Inputs] = {}
        with eval_mode(self.network):
            for first in range(0, len(order), batch):
                rows = order[first : first + batch]
                width = widths[rows[-1]]
                doing = f"encode {len(rows)} sources of {width} tokens at once"
                real = mask[rows, :width]
                with torch.no_grad(), explain_out_of_memory(doing, "shorten them"):
                    inputs = self.network.encode(src[rows, :width], None if bool(real.all()) else real)
                context = inputs.require("context", self)
                for row, one in zip(rows, context, strict=True):
                    own = mask[row, : widths[row]]
                    known = None if bool(own.all()) else own[None]
                    encoded[row] = Inputs(context=one[None, : len(own)], context_mask=known)
        return [encoded[row] for row in range(len(widths))]

    def tokenize_source(self, text: str) -> tuple[list[int], str | None]:
        """Return the ids of a source, as in training, and a sentence about its ignored part."""
        ids, end = self.source_tokenizer.encode(text), self.source_tokenizer.end
        closing_ids = [] if end is None else [end]
        if self.max_source_ids is None or len(ids) + len(closing_ids) <= self.max_source_ids:
            return [*ids, *closing_ids], None
        kept = self.max_source_ids - len(closing_ids)
        return [*ids[:kept], *closing_ids], f"it has {len(ids)} tokens; only the first {kept} are used (max_length)"

    def _pad_rows(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        device = self.network.encoder.token_embedding.weight.device
        src, lengths = pad_rows(rows, device, self.pad), torch.tensor([[len(row)] for row in rows], device=device)
        return src, torch.arange(src.shape[1], device=device) < lengths

    def _make_starts(self, src: Tensor) -> Int[Tensor, "b 1"]:
        if self.start is None:
            raise ValueError("the vocabulary has no start token; give generate its start_tokens")
        return torch.full((len(src), 1), self.start, device=src.device)

    def _limit_targets(
        self, src: Tensor, src_mask: Tensor | None, starts: int, max_new_tokens: int | None
    ) -> Int[Tensor, " b"]:
        """Return the most tokens that each row may generate."""
        if max_new_tokens is not None:
            return torch.full((len(src),), max_new_tokens, device=src.device)
        most = self.network.decoder.max_length
        if most is not None and starts >= most:
            raise ValueError(
                f"{starts} start tokens leave no room for a target, because the decoder's positions reach only {most} "
                "(max_length); give fewer"
            )
        lengths = torch.full((len(src),), src.shape[1], device=src.device) if src_mask is None else src_mask.sum(dim=1)
        limits: Tensor = limit_target(lengths)
        return limits if most is None else limits.clamp(max=most - starts)

    def check(self, src: Tensor, src_mask: Tensor | None) -> None:
        """Raise a ValueError for an empty source, an id outside the vocabulary, or an invalid mask."""
        check_mask(src, src_mask)
        size = self.network.encoder.vocab_size
        if src.numel() == 0 or (src_mask is not None and not bool(src_mask.any(dim=1).all())):
            raise ValueError("a source is empty, or all of it is padding; give each at least one token")
        low, high = int(src.min()), int(src.max())
        if low < 0 or high >= size:
            wrong = low if low < 0 else high
            raise ValueError(f"a source has token {wrong}, outside the vocabulary of 0 to {size - 1}")


def cut_at_end(ids: Sequence[int], end: int | None) -> list[int]:
    """Return the ids before the end token, or all if there is none."""
    ids = list(ids)
    return ids[: ids.index(end)] if end is not None and end in ids else ids
