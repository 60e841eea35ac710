"""Pairs of a corrupted text and what restores it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_xt.core.batch import EvaluationPairs, PairBatch
from lightning_xt.data.denoisers.base import Denoiser, DenoiserFactory, Ids
from lightning_xt.data.denoisers.draws import Draws
from lightning_xt.data.denoisers.span_corruption import SpanCorruption
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.loading.sampler import CounterBatchSampler
from lightning_xt.data.loading.workers import worker_options
from lightning_xt.data.pairs.pair_table import RaggedIds
from lightning_xt.data.pairs.parallel_corpus import ParallelCorpus
from lightning_xt.data.pairs.token_batches import cut_by_count
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.standard_library import StandardLibrary
from lightning_xt.data.text.text_corpus import TextCorpus
from lightning_xt.data.text.windows import TrainingWindows
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.sentinel_bytes import SentinelBytes
from lightning_xt.data.tokenizers.special_bytes import SPECIALS
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.option_checks import check_slots

CorpusFactory = Callable[[], TextCorpus]
UNUSED = ("stride", "order", "eval_lanes", "resident", "predict_prompts")
"""Options of a corpus that pairs do not use."""
SPLITS = ("train", "validation", "test")


class DenoisingPairs(ParallelCorpus):
    """Hide parts of windows of a text, which an encoder-decoder restores: span corruption, or a mixture of denoisers.

    A source is a window with sentinels, or mask tokens, in place of what is hidden, the token of its mode first and the
    end id last; a target is the start id, what the denoiser says, and the end id. Training pair n is a pure function of
    the corpus, the seed and n: its window, its denoiser and its corruption. Evaluation hides the same parts of the same
    windows in every run.

    Args:
        corpus: the text, with the size of windows and of batches; its own seed chooses the windows.
        denoisers: denoisers; each pair draws one of them by their weights.
        num_sentinels: number of sentinels, which are ids of the vocabulary; at least those that a window needs.
        pairs: the options of `ParallelCorpus`; the seed chooses the corruption of training windows, and the sources for
            `predict` are texts with sentinels, such as `def <extra_id_0>(self):`.

    Examples:
        >>> from functools import partial
        >>> from lightning_xt import DenoisingPairs, SpanCorruption, StandardLibrary
        >>> data = DenoisingPairs(partial(StandardLibrary, seq_len=100, batch_size=4), denoisers=[SpanCorruption])
        >>> src, tgt, src_mask = next(iter(data.train_dataloader()))
        >>> src.shape, tgt.shape
        (torch.Size([4, 91]), torch.Size([4, 22]))
    """

    @check_slots
    def __init__(
        self,
        corpus: CorpusFactory = StandardLibrary,
        *,
        denoisers: Sequence[DenoiserFactory] = (SpanCorruption,),
        num_sentinels: int = 100,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        with _explain_corpus():
            self.corpus = corpus()
        self.denoisers = [make() for make in denoisers]
        defaults = init_parameters(TextCorpus)
        for option in UNUSED:
            if (value := getattr(self.corpus, option)) != defaults[option].default:
                raise ValueError(f"--data.corpus.{option} is {value}, which denoising does not use; omit it")
        if self.corpus.separator is not None:
            raise ValueError(
                "--data.corpus separates documents, but an encoder-decoder reads a source as one text; omit "
                "--data.corpus.documents"
            )
        if not isinstance(self.corpus.tokenizer, Bytes):
            raise ValueError(
                f"--data.corpus.tokenizer is {type(self.corpus.tokenizer).__name__}, but denoising reads bytes; omit it"
            )
        if not self.denoisers:
            raise ValueError("--data.denoisers is empty; give at least one, such as SpanCorruption")
        n = self.corpus.seq_len
        for each in self.denoisers:
            if (needed := each.count_sentinels(n)) > num_sentinels:
                raise ValueError(
                    f"{each.name} needs up to {needed} sentinels for windows of {n} tokens, but --data.num_sentinels "
                    f"is {num_sentinels}; set --data.num_sentinels {needed} or more"
                )
        modes = list(dict.fromkeys(each.mode for each in self.denoisers if each.mode is not None))
        self.source_tokenizer = self.target_tokenizer = self._tokenizer = SentinelBytes(num_sentinels, modes)
        sizes = np.asarray([each.measure(n) for each in self.denoisers])
        # With a mode and the end id; and a target that a decoder reads after the start id.
        self._longest = int(sizes[:, 0].max()) + bool(modes) + 1, int(sizes[:, 1].max()) + 1
        self.trained_length = self._longest[0]

    @property
    def longest(self) -> tuple[int, int]:
        return self._longest

    def samples_after(self, first: int, batches: int) -> int:
        return first + batches * self.corpus.batch_size * self.rank_and_world[1]

    def describe_size(self, batches: int) -> str:
        step = self.samples_after(0, batches) * self.corpus.seq_len
        return f"{len(self._open('train')):,} tokens, {step:,} tokens a step"

    @property
    def content_hash(self) -> str:
        """SHA-256 of the text and the denoisers."""
        with _explain_corpus():
            text = self.corpus.content_hash
        kinds = [(type(each).__name__, sorted(vars(each).items())) for each in self.denoisers]
        return hashlib.sha256(repr((text, kinds, self._tokenizer.init_args)).encode()).hexdigest()

    def describe(self) -> str:
        return f"--data.corpus {type(self.corpus).__name__}"

    def option_for_split(self, split: str) -> str:
        return f"--data.corpus.{split}"

    def prepare_data(self) -> None:
        """Prepare the corpus once per machine; `predict` needs none."""
        if self.trainer is None or not self.trainer.predicting:
            _ = self.content_hash

    def open_training(self) -> None:
        self._open("train")

    def has_split(self, split: str) -> bool:
        with _explain_corpus():
            return getattr(self.corpus.splits, split) is not None

    def evaluation_batches(self, split: str) -> "_EvaluationWindows":
        text = self._open(split)
        return _EvaluationWindows(text, self.corpus.seq_len, self.corpus.eval_batch_size, self._corrupter(split, 0))

    def cut_batches(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return cut_by_count(lengths, self.corpus.eval_batch_size)

    def train_dataloader(self) -> Loader:
        """Return endless training batches from the last saved position."""
        self.mark_training_start()
        rank, world = self.rank_and_world
        batches = CounterBatchSampler(self.corpus.batch_size, start=self.next_sample, rank=rank, world=world)
        windows = TrainingWindows(self._open("train"), self.corpus.seq_len - 1, self.corpus.seed)
        workers = self.corpus.num_workers
        return self._build_loader(
            _TrainingPairs(windows, self._corrupter("train", self.seed)),
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            **worker_options(workers),
        )

    def _open(self, split: str) -> MappedTokens:
        with _explain_corpus():
            return self.corpus.require_split(split)

    def _corrupter(self, split: str, seed: int) -> "_Corrupter":
        stream = int(split_mix_64(seed, [SPLITS.index(split)])[0])
        return _Corrupter(self.denoisers, self._tokenizer, stream)


class _Corrupter:
    """Maker of pairs: the denoiser and the corruption of window n are a pure function of the seed and n."""

    def __init__(self, denoisers: Sequence[Denoiser], tokenizer: SentinelBytes, seed: int) -> None:
        self.denoisers, self.tokenizer, self.seed = denoisers, tokenizer, seed
        self.sentinels: Ids = np.asarray(tokenizer.find_sentinels(tokenizer.num_sentinels), dtype=np.int64)
        self.bounds = np.cumsum([each.weight for each in denoisers])

    def corrupt(self, windows: Sequence[NDArray[Any]], numbers: Sequence[int]) -> PairBatch:
        """Corrupt windows of bytes with these numbers, at least one of each."""
        pairs = [self._corrupt(*each) for each in zip(windows, numbers, strict=True)]
        sources, targets = (self._pad([pair[side] for pair in pairs]) for side in (0, 1))
        return PairBatch(sources[0], targets[0], sources[1])

    def _corrupt(self, window: NDArray[Any], number: int) -> tuple[Ids, Ids]:
        draws = Draws(int(split_mix_64(self.seed, [number])[0]))
        chosen = np.searchsorted(self.bounds, draws.draw_uniform(1)[0] * self.bounds[-1], side="right")
        denoiser = self.denoisers[min(int(chosen), len(self.denoisers) - 1)]
        made = denoiser.corrupt(window.astype(np.int64) + SPECIALS, self.sentinels, draws)
        mode = [] if denoiser.mode is None else [self.tokenizer.find_mode(denoiser.mode)]
        start, end = self.tokenizer.start, self.tokenizer.end
        source, target = np.concatenate((mode, made.source, [end])), np.concatenate(([start], made.target, [end]))
        return source.astype(np.int64), target.astype(np.int64)

    def _pad(self, rows: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = np.asarray([len(row) for row in rows])
        ragged = RaggedIds.from_lengths(np.concatenate(rows).astype(np.int32), lengths)
        return ragged.pad(np.arange(len(rows)), self.tokenizer.pad)


class _TrainingPairs(Dataset[PairBatch]):
    """Training pairs by number."""

    def __init__(self, windows: TrainingWindows, corrupter: _Corrupter) -> None:
        self.windows, self.corrupter = windows, corrupter

    def __getitem__(self, number: int) -> PairBatch:
        return self.__getitems__([number])

    def __getitems__(self, numbers: list[int]) -> PairBatch:
        return self.corrupter.corrupt(list(self.windows.__getitems__(numbers).numpy()), numbers)


class _EvaluationWindows(Dataset[EvaluationPairs]):
    """Batches of the windows of a split, one after another; the last may be shorter."""

    def __init__(self, text: MappedTokens, seq_len: int, batch_size: int, corrupter: _Corrupter) -> None:
        self.text, self.seq_len, self.batch_size, self.corrupter = text, seq_len, batch_size, corrupter
        self.windows = -(-len(text) // seq_len)

    def __len__(self) -> int:
        return -(-self.windows // self.batch_size)

    def __getitem__(self, number: int) -> EvaluationPairs:
        numbers = range(number * self.batch_size, min((number + 1) * self.batch_size, self.windows))
        windows = [
            self.text[np.arange(each * self.seq_len, min((each + 1) * self.seq_len, len(self.text)))]
            for each in numbers
        ]
        return EvaluationPairs(*self.corrupter.corrupt(windows, list(numbers)), torch.tensor(numbers), None)


@contextmanager
def _explain_corpus() -> Iterator[None]:
    """Name the options of the corpus in its errors as they are typed here."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(str(error).replace("--data.", "--data.corpus.")) from None
