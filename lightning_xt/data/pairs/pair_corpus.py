"""Base class of corpora of text pairs: options, tokenizers, batches by a token budget."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from itertools import chain
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.pairs.pair_files import PairLines
from lightning_xt.data.pairs.pair_table import PairTable, TableBatches
from lightning_xt.data.pairs.parallel_corpus import ParallelCorpus
from lightning_xt.data.pairs.token_batches import TokenBatches, cut_by_budget
from lightning_xt.data.pairs.tokenized_pairs import TokenizedPairs, tokenize
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.unused_ids import report_unused
from lightning_xt.system.option_checks import check_option

TokenizerFactory = Callable[[], Tokenizer]

EVALUATION_FACTOR = 4
"""Size of an evaluation batch relative to a training batch: no activations are kept for a backward pass."""


class PairCorpus(ParallelCorpus):
    """Pairs of texts in memory; a subclass reads them.

    A source is the ids of its text and the end id; a target is the start id, the ids of its text and the end id.
    Batches hold pairs of similar length.

    Args:
        tokenizer: the tokenizer's class and options; one that learns does so on the training split. None = BPE.
        shared_tokenizer: whether both sides share one tokenizer, which learns from both sides.
        target_tokenizer: the tokenizer of the targets, if it differs from that of the sources; it needs
            `shared_tokenizer` false. None = `tokenizer` for both sides.
        max_length: longest text in tokens, special tokens excluded. None means the most that fits into `max_tokens`.
        too_long: whether training pairs with a longer text are dropped (`drop`) or the text is cut (`truncate`).
            Validation and test always cut.
        max_tokens: tokens of a batch of one process, padding included, on the larger side. Batches of several
            processes are cut together, so one process may get one pair more.
        seed: chooses the sequence of training batches.
        predict_source: file of the sources for `predict`, one per line. None means no file.
    """

    def __init__(
        self,
        *,
        tokenizer: TokenizerFactory | None = None,
        shared_tokenizer: bool = True,
        max_length: int | None = None,
        too_long: Literal["drop", "truncate"] = "drop",
        max_tokens: int = 4096,
        seed: int = 0,
        predict_source: str | None = None,
        target_tokenizer: TokenizerFactory | None = None,
    ) -> None:
        super().__init__(seed=seed, predict_source=predict_source)
        check_option(type(self).__name__, "--data.max_tokens", max_tokens, least=8)
        check_option(type(self).__name__, "--data.max_length", max_length, least=1)
        self.max_length = max_tokens - 2 if max_length is None else max_length
        self._cuts_as_trained = max_length is None
        self.trained_length = self.max_length + 1
        self.too_long = too_long
        self.max_tokens = max_tokens
        build = tokenizer or BPE
        if shared_tokenizer and target_tokenizer is not None:
            raise ValueError(
                "--data.target_tokenizer is a second tokenizer, but --data.shared_tokenizer is true; set "
                "--data.shared_tokenizer false, or omit --data.target_tokenizer"
            )
        self.source_tokenizer = build()
        self.target_tokenizer = self.source_tokenizer if shared_tokenizer else (target_tokenizer or build)()
        self.pad = _require_pad("tokenizer", self.source_tokenizer)
        if target_tokenizer is not None:
            self.pad = _require_pad("target_tokenizer", self.target_tokenizer)
        self._is_trained = False
        self._lines: dict[str, PairLines | None] = {}
        self._training: PairTable | None = None
        self._batches: TokenBatches | None = None
        self._hash: str | None = None
        self._longest: tuple[int, int] | None = None

    @abstractmethod
    def lines(self, split: str) -> PairLines | None:
        """Read the texts of the train, validation or test split; None if there is no such split."""

    def use_tokenizers(self, source: Tokenizer, target: Tokenizer, trained_length: int | None = None) -> None:
        """Use trained tokenizers, such as those of a checkpoint, and its `trained_length` unless an option sets one.

        Call this before `setup`, or between `setup` and the loaders; validation and test then do not read the
        training split.
        """
        self.source_tokenizer, self.target_tokenizer = source, target
        if trained_length is not None and self._cuts_as_trained:
            self.max_length, self.trained_length = trained_length - 1, trained_length
        self._is_trained = True
        self._training = self._batches = self._hash = None
        self._evaluation.clear()

    @property
    def longest(self) -> tuple[int, int] | None:
        return self._longest

    def describe_size(self, batches: int) -> str:
        most = batches * self.max_tokens * self.rank_and_world[1]
        return f"{len(self._training_table().lengths):,} pairs, at most {most:,} tokens a step on each side"

    @property
    def content_hash(self) -> str | None:
        """SHA-256 of the training pairs and the tokenizers; None before `open_training`."""
        if self._hash is None and self._training is not None:
            tokenizers = [sorted(each.init_args.items()) for each in (self.source_tokenizer, self.target_tokenizer)]
            self._hash = hashlib.sha256(f"{self._training.content_hash} {tokenizers}".encode()).hexdigest()
        return self._hash

    def open_training(self) -> None:
        self._training_batches()
        self._lines.pop("train", None)

    def has_split(self, split: str) -> bool:
        return split in self._evaluation or self._read_once(split) is not None

    def open_evaluation(self, split: str) -> None:
        # Without training, the tokenizers may come from a checkpoint, which is loaded after `setup`.
        if self._is_trained:
            super().open_evaluation(split)

    def evaluation_batches(self, split: str) -> TableBatches:
        lines = self._read_once(split)
        if lines is None or not len(lines.sources):
            raise ValueError(f"{self.describe()}: the {split} split has no pairs; give some, or omit the split")
        found = self._tokenize(lines, "truncate")
        if found.too_long:
            rank_zero_info(
                f"{self.describe()}: {found.too_long:,} of {len(lines.sources):,} {split} pairs have more than "
                f"{self.max_length} tokens on a side; these are cut for the model, not as references"
            )
        table = self._build_table(found, lines.targets)
        self._lines.clear()
        return TableBatches(table, self.cut_batches(table.lengths), lines.sources)

    def cut_batches(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return cut_by_budget(lengths, EVALUATION_FACTOR * self.max_tokens)

    def samples_after(self, first: int, batches: int) -> int:
        return first if batches == 0 else self._training_batches().samples_after(first, batches)

    def train_dataloader(self) -> Loader:
        """Return endless training batches from the last saved position."""
        batches = copy(self._training_batches())
        self.mark_training_start()
        batches.start = self.next_sample
        return self._build_loader(self._training_table(), batch_sampler=batches)

    def _training_batches(self) -> TokenBatches:
        rank, world = self.rank_and_world
        if self._batches is None or (self._batches.rank, self._batches.world) != (rank, world):
            lengths = self._training_table().lengths
            self._check_lengths(lengths, world)
            self._batches = TokenBatches(lengths, self.max_tokens, seed=self.seed, rank=rank, world=world)
        return self._batches

    def _check_lengths(self, lengths: NDArray[np.int64], world: int) -> None:
        """Raise a ValueError if pairs of these lengths cannot be batched."""
        longest = int(lengths.max())
        if longest > self.max_tokens:
            raise ValueError(
                f"--data.max_tokens {self.max_tokens} has no room for the longest training pair of {self.describe()}, "
                f"which has {longest} tokens; set --data.max_tokens {longest} or more, or --data.max_length "
                f"{self.max_tokens - 2} or less"
            )
        if len(lengths) < world:
            raise ValueError(
                f"{self.describe()} has {len(lengths)} training pairs for {world} processes, but every batch needs "
                f"one for each process; give more pairs or set --trainer.devices {len(lengths)} or less"
            )

    def _training_table(self) -> PairTable:
        if self._training is None:
            lines = self._read_once("train")
            count = 0 if lines is None else len(lines.sources)
            if lines is None or count == 0:
                raise ValueError(f"{self.describe()} has no training pairs; give a file with pairs")
            found = self._tokenize(lines, self.too_long)
            if not len(found.source.lengths):
                raise ValueError(
                    f"all {count} training pairs of {self.describe()} have more than {self.max_length} tokens on a "
                    "side, so no pair is left; set a larger --data.max_length or --data.too_long truncate"
                )
            if found.too_long:
                done = "dropped" if self.too_long == "drop" else "cut"
                rank_zero_info(
                    f"{self.describe()}: {found.too_long:,} of {count:,} training pairs have more than "
                    f"{self.max_length} tokens on a side; they are {done} (--data.too_long {self.too_long})"
                )
            self._training = self._build_table(found, None)
        return self._training

    def _build_table(self, found: TokenizedPairs, references: list[str] | None) -> PairTable:
        table = PairTable(found.source, found.target, references, pad=self.pad)
        source, target = table.lengths.max(axis=0)
        # The last token of a target is predicted, never an input.
        before = self._longest or (0, 0)
        self._longest = max(before[0], int(source)), max(before[1], int(target) - 1)
        return table

    def _tokenize(self, lines: PairLines, too_long: Literal["drop", "truncate"]) -> TokenizedPairs:
        if not self._is_trained:
            self._train_tokenizers()
        return tokenize(lines, self.source_tokenizer, self.target_tokenizer, self.max_length, too_long)

    def _train_tokenizers(self) -> None:
        """Train the tokenizers on the training split, which is read only if a tokenizer learns."""
        if self.source_tokenizer is self.target_tokenizer:
            self.source_tokenizer.train(lambda: self._show_progress(*self._read_training_texts()))
        else:
            self.source_tokenizer.train(lambda: self._show_progress(self._read_training_texts()[0]))
            self.target_tokenizer.train(lambda: self._show_progress(self._read_training_texts()[1]))
        self._is_trained = True
        for each in dict.fromkeys((self.source_tokenizer, self.target_tokenizer)):
            report_unused(each, self.describe())

    def _show_progress(self, *texts: list[str]) -> Iterator[str]:
        total = sum(len(text) for each in texts for text in each)
        return with_progress(chain(*texts), f"training the tokenizer on {self.describe()}", total)

    def _read_training_texts(self) -> tuple[list[str], list[str]]:
        lines = self._read_once("train")
        return ([], []) if lines is None else (lines.sources, lines.targets)

    def _read_once(self, split: str) -> PairLines | None:
        """Read the texts of a split, once a stage."""
        if split not in self._lines:
            self._lines[split] = self.lines(split)
        return self._lines[split]


def _require_pad(option: str, tokenizer: Tokenizer) -> int:
    """Return the padding id of a tokenizer of pairs; ValueError if it lacks a special token."""
    if tokenizer.pad is None or tokenizer.start is None or tokenizer.end is None:
        name = f"--data.{option}"
        raise ValueError(
            f"{name} {type(tokenizer).__name__} has no pad, start and end token; set {name} SpecialBytes or BPE, or "
            f"name tokens of a file with {name}.pad, {name}.start and {name}.end"
        )
    return tokenizer.pad
