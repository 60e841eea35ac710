"""Sources in, targets out."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.data.sources import Source
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.engine import generate, stream
from lightning_xt.models.encoder_decoder import EncoderDecoder, check_mask
from lightning_xt.training.sampling import Sampling

GREEDY = Sampling()
SCORED = 32  # answers whose logits are held at once


class Translator:
    """Answers sources with an encoder-decoder, each source read once.

    Args:
        network: what answers; it decodes in evaluation mode and is left as it was.
        source_tokenizer: turns sources into ids.
        target_tokenizer: turns ids into targets.
        vocab: the special ids of both.
        max_source_ids: ids of a source that are read, the end id included. None = as many as the network's positions.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        vocab: dict[str, int | None],
        max_source_ids: int | None = None,
    ) -> None:
        self.network = network
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
        length: int | None = None,
        sampling: Sampling = GREEDY,
    ) -> Int[Tensor, "b n"]:
        """The ids of an answer to each source, the end token included, padded after it.

        Args:
            src: source ids.
            src_mask: True where a source id is real. None = everywhere.
            starts: what each answer begins with. None = the start token.
            length: most tokens to produce. None = twice those of each source, and 32 more.
            sampling: how tokens are chosen; greedily unless it has a temperature.
        """
        self.check(src, src_mask)
        starts = (self._starts(len(src)) if starts is None else starts).to(src.device)
        limits = self._limits(src, src_mask, starts.shape[1], length)
        return self._decoded(self._read(src, src_mask), starts, limits, sampling)

    def _decoded(self, known: Inputs, starts: Tensor, limits: Tensor, sampling: Sampling) -> Int[Tensor, "b n"]:
        """The answers to sources that have been read."""
        choices = sampling.resolved(temperature=0.0).choices
        most = int(limits.max())
        found = generate(self.network.decoder, starts, most, end=self.end, pad=self.pad, inputs=known, **choices)
        beyond = torch.arange(found.shape[1], device=found.device) >= limits[:, None]
        return found.masked_fill(beyond, self.pad)

    def _read(self, src: Tensor, src_mask: Tensor | None) -> Inputs:
        """What the decoder is to know of the sources."""
        was_training = self.network.training
        self.network.train(False)
        try:
            with torch.no_grad():
                return self.network.encode(src, src_mask)
        finally:
            self.network.train(was_training)

    def answers(self, sources: Sequence[Source], sampling: Sampling) -> list[dict[str, Any]]:
        """What is answered to each source, and its score: the log-probability of the answer, in nats.

        A source that cannot be read, or that is empty, gets an empty answer; the others do not notice.
        """
        results = [
            {"id": each["id"], "source": each["text"] or "", "text": "", "score": 0.0, "problem": each["problem"]}
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
            results[number]["problem"] = problem and f"line {source['id'] + 1}: {problem}"
        if readable:
            src, src_mask = self._padded(list(readable.values()))
            known, starts = self._read(src, src_mask), self._starts(len(src)).to(src.device)
            limits = self._limits(src, src_mask, 1, sampling.length)
            found = self._decoded(known, starts, limits, sampling)
            scores = self._scores(known, starts, found, limits)
            for number, ids, score in zip(readable, found.tolist(), scores.tolist(), strict=True):
                results[number].update(text=self.text(ids), score=round(score, 4))
        return results

    def of_texts(self, texts: Sequence[str], sampling: Sampling) -> list[dict[str, Any]]:
        """The same for bare texts."""
        sources = [Source(id=number, text=text, problem=None) for number, text in enumerate(texts)]
        return self.answers(sources, sampling)

    def streamed(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        """The answer to one source, piece by piece.

        Raises:
            ValueError: the source is empty, or has words that are unknown.
        """
        if not prompt.strip():
            raise ValueError('generate needs a source to translate: --prompt "..."')
        ids, problem = self._encoded(prompt)
        if problem is not None:
            print(problem, file=sys.stderr)
        src, src_mask = self._padded([ids])
        most = int(self._limits(src, src_mask, 1, sampling.length))
        choices = sampling.resolved(temperature=0.0).choices
        starts, known = self._starts(1).to(src.device), self._read(src, src_mask)
        text = self.target_tokenizer.stream()
        with closing(stream(self.network.decoder, starts, most, inputs=known, **choices)) as tokens:
            for token in map(int, tokens):
                if token == self.end:
                    break
                yield text.feed(token)
        yield text.finish()

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer, up to its end."""
        return self.target_tokenizer.decode(until_end(ids, self.end))

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

    def _limits(self, src: Tensor, src_mask: Tensor | None, starts: int, length: int | None) -> Int[Tensor, " b"]:
        """Most tokens that each row may produce."""
        if length is not None:
            return torch.full((len(src),), length, device=src.device)
        most = self.network.decoder.max_length
        if most is not None and starts >= most:
            raise ValueError(
                f"{starts} start tokens leave no room for an answer, because the decoder's positions reach only {most} "
                "(max_length); give fewer"
            )
        read = torch.full((len(src),), src.shape[1], device=src.device) if src_mask is None else src_mask.sum(dim=1)
        limits: Tensor = 2 * read + 32
        return limits if most is None else limits.clamp(max=most - starts)

    @torch.no_grad()
    def _scores(self, known: Inputs, starts: Tensor, found: Tensor, limits: Tensor) -> Float[Tensor, " b"]:
        """Sum of the log-probabilities of each answer's tokens, the end included."""
        decoder, read = self.network.decoder, torch.cat((starts, found[:, :-1]), dim=1)
        was_training = decoder.training
        decoder.train(False)
        parts = []
        for first in range(0, len(found), SCORED):
            rows = slice(first, first + SCORED)
            mask = None if known.context_mask is None else known.context_mask[rows]
            context = None if known.context is None else known.context[rows]
            logits = decoder(read[rows], inputs=Inputs(context=context, context_mask=mask)).float()
            parts.append(logits.gather(-1, found[rows, :, None])[..., 0] - logits.logsumexp(dim=-1))
        decoder.train(was_training)
        # What fills up is no part of an answer.
        beyond = torch.arange(found.shape[1], device=found.device) >= limits[:, None]
        if self.end is not None:
            beyond = beyond | ((found == self.end).cumsum(dim=1) - (found == self.end).long() > 0)
        return torch.cat(parts).masked_fill(beyond, 0.0).sum(dim=1)

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


def until_end(ids: Sequence[int], end: int | None) -> list[int]:
    """What stands before the end token; everything where there is none."""
    ids = list(ids)
    return ids[: ids.index(end)] if end is not None and end in ids else ids
