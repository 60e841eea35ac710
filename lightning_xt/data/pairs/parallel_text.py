"""Pairs of texts from the user's files."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.data.files.paths import find_files, require_path
from lightning_xt.data.held_out import cut_splits, parse_held_out
from lightning_xt.data.pairs.pair_corpus import PairCorpus
from lightning_xt.data.pairs.pair_files import PairLines, drop_blank, read_pairs

SEVERAL, UNLIKE = 20, 1.5
"""Held-out pairs whose lengths are compared, and the ratio of means from which they are reported."""


class ParallelText(PairCorpus):
    r"""Serve pairs of texts from files: a source and its target, such as a translation.

    The pairs are the same lines of two files, the two columns of a `.tsv` file, or two fields of the objects in a file
    of JSON lines (`.jsonl`); each plain or `.gz`. They are split into training | validation | test, in this order,
    unless a split has its own files. Training drops pairs with a blank side.

    Args:
        path: file of the sources, one per line; or of both sides, a `.tsv` or `.jsonl` file. `~` is the home folder;
            a relative path is looked up in the current folder, then in the data folder.
        target_path: file of the targets, one for each line of `path`. None means that `path` holds both sides.
        validation: the fraction of the pairs of `path`, before the test split, that is held out for validation (0
            means no validation); or a path like `path`, all of whose pairs are the validation split.
        validation_target_path: file of the targets if `validation` is a file of sources. None means that it holds
            both sides.
        test: the test split likewise; as a fraction it is cut from the end of `path`.
        test_target_path: file of the targets if `test` is a file of sources. None means that it holds both sides.
        fields: names of the source and the target in the objects of JSON lines, such as [en, de].
        pairs: the options of `PairCorpus`.

    Examples:
        >>> from pathlib import Path
        >>> from lightning_xt import ParallelText, SpecialBytes
        >>> written = Path("pairs.tsv").write_text("a dog\tein Hund\n" * 40)
        >>> data = ParallelText("pairs.tsv", tokenizer=SpecialBytes, max_tokens=64)
        >>> data.setup("fit")
        >>> src, tgt, src_mask = next(iter(data.train_dataloader()))
        >>> src.shape, tgt.shape
        (torch.Size([6, 6]), torch.Size([6, 10]))
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        target_path: str | None = None,
        validation: float | str = 0.05,
        validation_target_path: str | None = None,
        test: float | str = 0.05,
        test_target_path: str | None = None,
        fields: tuple[str, str] | None = None,
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        self.held_out = parse_held_out(validation, test)
        self.paths = {"train": require_path(path), **self.held_out.paths}
        self.target_paths = {"train": target_path, "validation": validation_target_path, "test": test_target_path}
        for split, target in self.target_paths.items():
            if target is not None and self.paths[split] is None:
                raise ValueError(
                    f"--data.{split}_target_path {target} needs the file of its sources; name it with --data.{split}"
                )
        self.fields = None if fields is None else _require_two(fields)
        self.source_field = None if self.fields is None else self.fields[0]

    def lines(self, split: str) -> PairLines | None:
        if split != "train" and self.paths[split] is not None:
            return self._read(split)
        if split != "train" and not self.held_out.fractions[split]:
            return None
        pairs = self._read("train")
        if split == "train":
            self._refuse_held_out()
        splits = cut_splits(len(pairs.sources), self.held_out.fractions, self.describe(), "pairs")
        begin, end = splits[split]
        if split == "train":
            self._report_sorted(pairs.sources, end)
        cut = PairLines(pairs.sources[begin:end], pairs.targets[begin:end])
        return drop_blank(cut, self.describe()) if split == "train" else cut

    def describe(self) -> str:
        return f"--data.path {self.paths['train']}"

    def _refuse_held_out(self) -> None:
        """Raise a ValueError if the training pairs are those of another split."""
        trained = _resolve("--data.path", str(self.paths["train"]))
        for split in ("validation", "test"):
            path = self.paths[split]
            if path is not None and not trained.isdisjoint(_resolve(f"--data.{split}", path)):
                raise ValueError(
                    f"--data.{split} {path} is the file of {self.describe()} too, and pairs that are measured are not "
                    f"trained on, which leaves nothing to train on; give other pairs, or a fraction, --data.{split} 0.1"
                )

    def _report_sorted(self, sources: list[str], first: int) -> None:
        """Report held-out sources, from the first on, whose lengths differ from those of the others."""
        means = [np.mean([*map(len, part)] or [0]) for part in (sources[:first], sources[first:])]
        if len(sources) - first >= SEVERAL and max(means) > UNLIKE * min(means):
            rank_zero_info(
                f"{self.describe()}: its last {len(sources) - first:,} sources, which are held out, have "
                f"{means[1]:.0f} characters on average and the others {means[0]:.0f}; if the pairs are sorted, shuffle "
                "them, or give files for --data.validation and --data.test"
            )

    def _read(self, split: str) -> PairLines:
        option = "--data.path" if split == "train" else f"--data.{split}"
        return read_pairs(option, str(self.paths[split]), self.target_paths[split], self.fields)


def _resolve(option: str, path: str) -> set[Path]:
    return {file.resolve() for file in find_files(option, path)}


def _require_two(fields: tuple[str, str]) -> tuple[str, str]:
    """Return the fields; ValueError unless they are two different ones."""
    if len(fields) != 2 or fields[0] == fields[1]:
        raise ValueError(
            f"--data.fields must be two different names, not {list(fields)}; name the source first, such as "
            "--data.fields '[en, de]'"
        )
    return fields
