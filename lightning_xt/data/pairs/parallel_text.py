"""Pairs of texts of one's own."""

from typing import Literal

from lightning_xt.data.files.paths import named_path
from lightning_xt.data.pairs.pair_corpus import PairCorpus, TokenizerFactory
from lightning_xt.data.pairs.pair_files import PairLines, read_pairs, without_blank
from lightning_xt.data.text.fractions import held_out
from lightning_xt.data.tokenizers.bpe import BPE


class ParallelText(PairCorpus):
    """Serves pairs of texts from files: a source and what it becomes, such as its translation.

    They are the same lines of two files, the two columns of a `.tsv` file, or two fields of the objects in a file of
    JSON lines (`.jsonl`); each plain or `.gz`. The pairs are cut into training | validation | test, in this order,
    unless these have files of their own. Training leaves out pairs of which a side is blank.

    Args:
        path: file of the sources, one per line; or of both sides, a `.tsv` or `.jsonl` file. `~` is the home folder;
            what is not found from here is looked for in the data folder.
        target_path: file of the targets, one for each line of `path`. None means that `path` holds both sides.
        validation_path: like `path`, for pairs that are used whole for validation; nothing is cut from `path` for it,
            so `validation_fraction` has no effect. None means a share of `path`.
        validation_target_path: file of the targets of `validation_path`. None means that it holds both sides.
        test_path: the same for testing, instead of `test_fraction`. None means a share of `path`.
        test_target_path: file of the targets of `test_path`. None means that it holds both sides.
        validation_fraction: share of the pairs, before the test split, kept for validation; 0 means no validation.
        test_fraction: share of the pairs at the end kept for testing; 0 means no test split.
        fields: names of the source and the target in the objects of JSON lines, such as [en, de].
        tokenizer: recipe of what turns text into ids; it learns from the training split where it has to.
        shared_tokenizer: whether both sides have one tokenizer, which learns from both, instead of one each.
        max_length: ids a text may have, special ones aside. None means what fits into `max_tokens`.
        too_long: whether training pairs with a longer text are left out (`drop`) or the text is cut (`truncate`).
            Validation and test leave out none: they cut.
        max_tokens: padded ids of a batch of one process, on the larger of both sides; of several processes, whose
            batches are cut together, one may have a pair more.
        seed: chooses the sequence of training batches.
        predict_source: file of the sources that `predict` reads, one per line. None means none.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        target_path: str | None = None,
        validation_path: str | None = None,
        validation_target_path: str | None = None,
        test_path: str | None = None,
        test_target_path: str | None = None,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        fields: tuple[str, str] | None = None,
        tokenizer: TokenizerFactory = BPE,
        shared_tokenizer: bool = True,
        max_length: int | None = None,
        too_long: Literal["drop", "truncate"] = "drop",
        max_tokens: int = 4096,
        seed: int = 0,
        predict_source: str | None = None,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            shared_tokenizer=shared_tokenizer,
            max_length=max_length,
            too_long=too_long,
            max_tokens=max_tokens,
            seed=seed,
            predict_source=predict_source,
        )
        self.paths = {"train": named_path(path), "validation": validation_path, "test": test_path}
        self.target_paths = {"train": target_path, "validation": validation_target_path, "test": test_target_path}
        for split, target in self.target_paths.items():
            if target is not None and self.paths[split] is None:
                raise ValueError(
                    f"data.{split}_target_path {target} needs the sources of these targets; name them with "
                    f"--data.{split}_path"
                )
        self.fractions = held_out({"validation": validation_fraction, "test": test_fraction}, self.paths)
        self.fields = None if fields is None else _two(fields)
        self.source_field = None if self.fields is None else self.fields[0]

    def lines(self, split: str) -> PairLines | None:
        if split != "train" and self.paths[split] is not None:
            return self._from_files(split)
        if split != "train" and not self.fractions[split]:
            return None
        pairs = self._from_files("train")
        count = len(pairs.sources)
        # However few pairs there are, a share of them is at least one.
        sizes = {split: max(1, int(count * share)) if share else 0 for split, share in self.fractions.items()}
        test = count - sizes["test"]
        validation = test - sizes["validation"]
        if validation < 1:
            raise ValueError(
                f"{self.describe()}: of its {count} pairs validation takes {sizes['validation']} and test "
                f"{sizes['test']}, which leaves none to train on; give more, or set --data.validation_fraction 0 or "
                "--data.test_fraction 0"
            )
        begin, end = {"train": (0, validation), "validation": (validation, test), "test": (test, count)}[split]
        cut = PairLines(pairs.sources[begin:end], pairs.targets[begin:end])
        return without_blank(cut, self.describe()) if split == "train" else cut

    def describe(self) -> str:
        return f"--data.path {self.paths['train']}"

    def way_to(self, split: str) -> str:
        return f"--data.{split}_path or --data.{split}_fraction"

    def _from_files(self, split: str) -> PairLines:
        option = "--data.path" if split == "train" else f"--data.{split}_path"
        return read_pairs(option, str(self.paths[split]), self.target_paths[split], self.fields)


def _two(fields: tuple[str, str]) -> tuple[str, str]:
    """The fields, if they are two.

    Raises:
        ValueError: they are not, or both are one.
    """
    if len(fields) != 2 or fields[0] == fields[1]:
        raise ValueError(
            f"data.fields must be two different names, not {list(fields)}; name the source first, such as "
            "--data.fields '[en, de]'"
        )
    return fields
