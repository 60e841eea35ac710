"""Sources in, targets out."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.data.sources import Source
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.engine import generate, stream
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.training.sampling import Sampling

GREEDY = Sampling()


class Translator:
    """Answers sources with an encoder-decoder, each source read once.

    Args:
        network: what answers; it decodes in evaluation mode and is left as it was.
        source_tokenizer: turns sources into ids.
        target_tokenizer: turns ids into targets.
        vocab: the special ids of both.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        vocab: dict[str, int | None],
    ) -> None:
        self.network = network
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.start, self.end = vocab["start"], vocab["end"]
        self.pad = vocab["pad"] or 0

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
        sampling = sampling.resolved(temperature=0.0)
        self._check(src, src_mask)
        starts = self._starts(len(src)).to(src.device) if starts is None else starts
        limits = self._limits(src, src_mask, starts.shape[1], length)
        with _evaluating(self.network), torch.no_grad():
            inputs = self.network.encode(src, src_mask)
            found = generate(
                self.network.decoder,
                starts,
                int(limits.max()),
                end=self.end,
                pad=self.pad,
                inputs=inputs,
                **sampling.choices,
            )
        beyond = torch.arange(found.shape[1], device=found.device) >= limits[:, None]
        return found.masked_fill(beyond, self.pad)

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
            found = self.decode(src, src_mask, length=sampling.length, sampling=sampling)
            limits = self._limits(src, src_mask, 1, sampling.length)
            scores = self._scores(src, src_mask, found, limits)
            for number, ids, score in zip(readable, found.tolist(), scores.tolist(), strict=True):
                results[number].update(text=self.text(ids), score=round(score, 4))
        return results

    def streamed(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        """The answer to one source, piece by piece.

        Raises:
            ValueError: the source is empty, or has words that are unknown.
        """
        if not prompt.strip():
            raise ValueError('generate needs a source to translate: --prompt "..."')
        src, src_mask = self._padded([self._encoded(prompt)[0]])
        sampling = sampling.resolved(temperature=0.0)
        starts = self._starts(1).to(src.device)
        limits = self._limits(src, src_mask, 1, sampling.length)
        text = self.target_tokenizer.stream()
        with _evaluating(self.network), torch.no_grad():
            inputs = self.network.encode(src, src_mask)
            steps = stream(self.network.decoder, starts, int(limits), inputs=inputs, end=self.end, **sampling.choices)
            with closing(steps) as tokens:
                for token in tokens:
                    yield text.feed(int(token))
        yield text.finish()

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer, up to its end."""
        return self.target_tokenizer.decode(until_end(ids, self.end))

    def _encoded(self, text: str) -> tuple[list[int], str | None]:
        """The ids of a source as the model was trained to read them, and what was left out."""
        ids, end, most = self.source_tokenizer.encode(text), self.source_tokenizer.end, self.network.encoder.max_length
        closing_ids = [] if end is None else [end]
        if most is None or len(ids) + len(closing_ids) <= most:
            return [*ids, *closing_ids], None
        kept = most - len(closing_ids)
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
        most = self.network.decoder.max_length
        if length is not None:
            return torch.full((len(src),), length, device=src.device)
        read = torch.full((len(src),), src.shape[1], device=src.device) if src_mask is None else src_mask.sum(dim=1)
        limits: Tensor = 2 * read + 32
        return limits if most is None else limits.clamp(max=most - starts)

    @torch.no_grad()
    def _scores(self, src: Tensor, src_mask: Tensor, found: Tensor, limits: Tensor) -> Float[Tensor, " b"]:
        """Sum of the log-probabilities of each answer's tokens, the end included."""
        tgt = torch.cat((self._starts(len(src)).to(src.device), found), dim=1)
        with _evaluating(self.network):
            logits = self.network(src, tgt[:, :-1], src_mask)
        each = logits.float().log_softmax(dim=-1).gather(-1, found[..., None])[..., 0]
        # What fills up is no part of an answer.
        beyond = torch.arange(found.shape[1], device=found.device) >= limits[:, None]
        if self.end is not None:
            beyond = beyond | ((found == self.end).cumsum(dim=1) - (found == self.end).long() > 0)
        return each.masked_fill(beyond, 0.0).sum(dim=1)

    def _check(self, src: Tensor, src_mask: Tensor | None) -> None:
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


@contextmanager
def _evaluating(network: EncoderDecoder) -> Iterator[Inputs | None]:
    """Puts a network into evaluation mode, and back."""
    was_training = network.training
    network.train(False)
    try:
        yield None
    finally:
        network.train(was_training)
