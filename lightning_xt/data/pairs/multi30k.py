"""The sentences that small translation models are compared on."""

import re
from pathlib import Path
from typing import Literal

from lightning_xt.data.files.data_folder import data_folder
from lightning_xt.data.files.download import download
from lightning_xt.data.files.reading import blocks
from lightning_xt.data.pairs.pair_corpus import PairCorpus, TokenizerFactory
from lightning_xt.data.pairs.pair_files import PairLines, aligned, without_blank
from lightning_xt.data.tokenizers.bpe import BPE

NAMES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


class Multi30k(PairCorpus):
    """Serves descriptions of photographs with their translations (Elliott et al., 2016): Multi30K, task 1.

    https://github.com/multi30k/dataset. English and German, French or Czech: 29,000 pairs to train on, 1,014 for
    validation, and the 1,000 of test_2016_flickr. The files are `train`, `val` and `test_2016_flickr`, each with the
    ending `.en` and that of the other language, plain or `.gz`. Without a `path` they are looked for in the subfolder
    `multi30k` of the data folder, which is `$LIGHTNING_XT_DATA` or `lightning-xt` in the user's cache folder; those
    that are not there are downloaded to it.

    Args:
        path: folder that holds the files, to which nothing is downloaded. `~` is the home folder; what is not found
            from here is looked for in the data folder. None means the data folder's subfolder `multi30k`.
        languages: the source and the target, as the files' names end: en, de, fr or cs.
        base_url: folder on the network from which files are downloaded that the data folder lacks.
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
        *,
        path: str | None = None,
        languages: tuple[str, str] = ("en", "de"),
        base_url: str = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw",
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
        known = all(re.fullmatch("[A-Za-z]+", language) for language in languages)
        if len(languages) != 2 or languages[0] == languages[1] or not known:
            raise ValueError(
                f"data.languages must be two different ones, not {list(languages)}; write the source first, such as "
                "--data.languages '[en, de]'"
            )
        self.path = path
        self.languages = tuple(languages)
        # Outputs of JSON lines for a source in the same form.
        self.source_field = languages[0]
        self.base_url = base_url.rstrip("/")

    def lines(self, split: str) -> PairLines | None:
        """The pairs of a split, downloaded first where the data folder lacks them."""
        source, target = (self._file(f"{NAMES[split]}.{language}") for language in self.languages)
        pairs = aligned(source, target)
        return without_blank(pairs, self.describe()) if split == "train" else pairs

    def describe(self) -> str:
        return "--data Multi30k" if self.path is None else f"--data.path {self.path}"

    def _file(self, name: str) -> Path:
        """The file of that name, plain or packed."""
        folder = data_folder().absolute() / "multi30k" if self.path is None else self._folder(self.path)
        found = next((folder / each for each in (name, f"{name}.gz") if (folder / each).is_file()), None)
        if found is not None:
            return found
        if self.path is None:
            return _whole(download(f"{self.base_url}/{name}.gz", folder / f"{name}.gz"))
        needed = ", ".join(f"{split}.{language}" for split in NAMES.values() for language in self.languages)
        raise FileNotFoundError(
            f"--data.path {self.path} has neither {name} nor {name}.gz; put {needed} there, plain or .gz, or leave "
            "--data.path away to download them"
        )

    @staticmethod
    def _folder(path: str) -> Path:
        folder = Path(path).expanduser()
        if not folder.is_absolute() and not folder.is_dir() and (data_folder() / folder).is_dir():
            return data_folder() / folder
        if not folder.is_dir():
            raise FileNotFoundError(
                f"--data.path {path}: there is no such folder, here or in the data folder {data_folder()}; check the "
                "path, or leave it away to download the files"
            )
        return folder


def _whole(file: Path) -> Path:
    """A file that has just come, which is removed where it is no gzip: the next command would take it for one."""
    try:
        for _ in blocks(file):
            pass
    except ValueError:
        file.unlink(missing_ok=True)
        raise
    return file
