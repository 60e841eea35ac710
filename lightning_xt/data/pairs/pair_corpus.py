"""What all corpora of sentence pairs have in common: options, tokenizers, batches by a budget of ids."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable
from copy import copy
from itertools import chain
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from lightning_xt.data.data_checks import require_at_least
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.pairs.pair_files import PairLines
from lightning_xt.data.pairs.pair_table import PairTable, TableBatches
from lightning_xt.data.pairs.pairs import Pairs
from lightning_xt.data.pairs.token_batches import TokenBatches, by_budget
from lightning_xt.data.pairs.tokenized_pairs import Tokenized, tokenized
from lightning_xt.data.tokenizers.base import Tokenizer

TokenizerFactory = Callable[[], Tokenizer]

EVALUATION = 4
"""Ids of an evaluation batch for each of a training batch: nothing is kept for a backward pass."""


class PairCorpus(Pairs):
    """Serves sentences and their translations; a subclass says where they come from.

    A source is the ids of its text and the end id, a target the start id, the ids and the end id. Batches hold pairs
    of like length.

    Args:
        tokenizer: recipe of what turns text into ids; it learns from the training split where it has to.
        shared_tokenizer: whether both sides have one tokenizer, which learns from both, instead of one each.
        max_length: ids a text may have, special ones aside. None means what fits into `max_tokens`.
        too_long: whether training pairs with a longer text are left out (`drop`) or the text is cut (`truncate`).
            Validation and test leave out none: they cut.
        max_tokens: padded ids of a batch of one process, on the larger of both sides; of several processes, whose
            batches are cut together, one may have a pair more.
        seed: chooses the sequence of training batches.
        predict_source: file of the sources that `predict` reads. None means none.
    """

    def __init__(
        self,
        *,
        tokenizer: TokenizerFactory,
        shared_tokenizer: bool,
        max_length: int | None,
        too_long: Literal["drop", "truncate"],
        max_tokens: int,
        seed: int,
        predict_source: str | None,
    ) -> None:
        super().__init__(seed=seed, predict_source=predict_source)
        require_at_least("max_tokens", max_tokens, 8)
        if max_length is not None:
            require_at_least("max_length", max_length, 1)
        self.max_length = max_tokens - 2 if max_length is None else max_length
        self.max_source_ids = self.max_length + 1
        self.too_long = too_long
        self.max_tokens = max_tokens
        self.source_tokenizer = tokenizer()
        self.target_tokenizer = self.source_tokenizer if shared_tokenizer else tokenizer()
        pad = self.target_tokenizer.pad
        if pad is None or self.target_tokenizer.start is None or self.target_tokenizer.end is None:
            raise ValueError(
                f"data.tokenizer {type(self.target_tokenizer).__name__} has no ids that pad, open and end a text; set "
                "--data.tokenizer SpecialBytes or BPE"
            )
        self.pad = pad
        self._learnt = False
        self._held: dict[str, PairLines | None] = {}
        self._training: PairTable | None = None
        self._batches: TokenBatches | None = None
        self._hash: str | None = None
        self._longest: tuple[int, int] | None = None

    @abstractmethod
    def lines(self, split: str) -> PairLines | None:
        """The texts of the train, validation or test split; None where there is no such split."""

    def use_tokenizers(self, source: Tokenizer, target: Tokenizer) -> None:
        """Reads the texts by tokenizers that have learnt already, such as those of a checkpoint.

        Called before `setup` or between it and the loaders, it spares validation and test the training split.
        """
        self.source_tokenizer, self.target_tokenizer = source, target
        self._learnt = True
        self._training = self._batches = self._hash = None
        self._evaluation.clear()

    @property
    def longest(self) -> tuple[int, int] | None:
        return self._longest

    @property
    def content_hash(self) -> str | None:
        """SHA-256 of the training pairs and the tokenizers; None before they are opened."""
        if self._hash is None and self._training is not None:
            tokenizers = [sorted(each.init_args.items()) for each in (self.source_tokenizer, self.target_tokenizer)]
            self._hash = hashlib.sha256(f"{self._training.content_hash} {tokenizers}".encode()).hexdigest()
        return self._hash

    def open_training(self) -> None:
        self._training_batches()
        self._held.pop("train", None)

    def has_split(self, split: str) -> bool:
        return split in self._evaluation or self._lines_of(split) is not None

    def open_evaluation(self, split: str) -> None:
        # Without training, tokenizers may come from a checkpoint, which is read only after this.
        if self._learnt:
            super().open_evaluation(split)

    def evaluation_batches(self, split: str) -> TableBatches:
        lines = self._lines_of(split)
        if lines is None or not len(lines.sources):
            raise ValueError(f"{self.describe()}: the {split} split has no pairs; give some, or leave it away")
        found = self._tokenized(lines, "truncate")
        if found.too_long:
            rank_zero_info(
                f"{self.describe()}: {found.too_long:,} of {len(lines.sources):,} {split} pairs have more than "
                f"{self.max_length} ids on a side; these are cut for the model, not as references"
            )
        table = self._table(found, lines.targets)
        self._held.clear()
        return TableBatches(table, self.evaluation_cut(table.lengths))

    def evaluation_cut(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return by_budget(lengths, EVALUATION * self.max_tokens)

    def samples_after(self, first: int, batches: int) -> int:
        return first if batches == 0 else self._training_batches().samples_after(first, batches)

    def train_dataloader(self) -> Loader:
        """Training batches without end, from where the run stopped."""
        batches = copy(self._training_batches())
        self.mark_training_start()
        batches.start = (lambda: 0) if self._overfitting else (lambda: self.samples_seen)
        return self._loader(self._training_table(), batch_sampler=batches)

    def _training_batches(self) -> TokenBatches:
        rank, world = self.rank_and_world
        if self._batches is None or (self._batches.rank, self._batches.world) != (rank, world):
            lengths = self._training_table().lengths
            self._check(lengths, world)
            self._batches = TokenBatches(lengths, self.max_tokens, seed=self.seed, rank=rank, world=world)
        return self._batches

    def _check(self, lengths: NDArray[np.int64], world: int) -> None:
        """Raises a ValueError where no batches can be made of pairs of these lengths."""
        longest = int(lengths.max())
        if longest > self.max_tokens:
            raise ValueError(
                f"data.max_tokens {self.max_tokens} has no room for the longest training pair of {self.describe()}, "
                f"which has {longest} ids; set --data.max_tokens {longest} or more, or --data.max_length "
                f"{self.max_tokens - 2} or less"
            )
        if len(lengths) < world:
            raise ValueError(
                f"{self.describe()} has {len(lengths)} training pairs for {world} processes, each of which needs one "
                f"for every batch; give more pairs or set --trainer.devices {len(lengths)} or less"
            )

    def _training_table(self) -> PairTable:
        if self._training is None:
            lines = self._lines_of("train")
            count = 0 if lines is None else len(lines.sources)
            if lines is None or count == 0:
                raise ValueError(f"{self.describe()} has no training pairs; give a file that has some")
            found = self._tokenized(lines, self.too_long)
            if not len(found.source.lengths):
                raise ValueError(
                    f"each of the {count} training pairs of {self.describe()} has more than {self.max_length} ids on a "
                    "side, so that none is left; set a larger --data.max_length or --data.too_long truncate"
                )
            if found.too_long:
                done = "left out" if self.too_long == "drop" else "cut"
                rank_zero_info(
                    f"{self.describe()}: {found.too_long:,} of {count:,} training pairs have more than "
                    f"{self.max_length} ids on a side; they are {done} (--data.too_long {self.too_long})"
                )
            self._training = self._table(found, None)
        return self._training

    def _table(self, found: Tokenized, references: list[str] | None) -> PairTable:
        table = PairTable(found.source, found.target, references, pad=self.pad)
        source, target = table.lengths.max(axis=0)
        # The last id of a target is predicted, not read.
        before = self._longest or (0, 0)
        self._longest = max(before[0], int(source)), max(before[1], int(target) - 1)
        return table

    def _tokenized(self, lines: PairLines, too_long: Literal["drop", "truncate"]) -> Tokenized:
        if not self._learnt:
            self._learn()
        return tokenized(lines, self.source_tokenizer, self.target_tokenizer, self.max_length, too_long)

    def _learn(self) -> None:
        """Trains the tokenizers on the training split, which is read only if they have something to learn."""
        if self.source_tokenizer is self.target_tokenizer:
            self.source_tokenizer.train(lambda: chain(*self._training_texts()))
        else:
            self.source_tokenizer.train(lambda: self._training_texts()[0])
            self.target_tokenizer.train(lambda: self._training_texts()[1])
        self._learnt = True

    def _training_texts(self) -> tuple[Iterable[str], Iterable[str]]:
        lines = self._lines_of("train")
        return ([], []) if lines is None else (lines.sources, lines.targets)

    def _lines_of(self, split: str) -> PairLines | None:
        """The texts of a split, read once for all that a stage does with them."""
        if split not in self._held:
            self._held[split] = self.lines(split)
        return self._held[split]
