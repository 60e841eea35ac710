"""Multi30k: image descriptions and their translations, the usual benchmark of small translation models."""

import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning_xt.data.files.data_folder import data_folder
from lightning_xt.data.files.download import download
from lightning_xt.data.files.reading import read_blocks
from lightning_xt.data.pairs.pair_corpus import PairCorpus
from lightning_xt.data.pairs.pair_files import PairLines, drop_blank, read_aligned
from lightning_xt.system.files import expand_home

NAMES = MappingProxyType({"train": "train", "validation": "val", "test": "test_2016_flickr"})


class Multi30k(PairCorpus):
    """Serve descriptions of photographs with their translations (Elliott et al., 2016): Multi30K, task 1.

    https://github.com/multi30k/dataset. English and German, French or Czech: 29,000 pairs to train on, 1,014 for
    validation, and the 1,000 of test_2016_flickr. The files are `train`, `val` and `test_2016_flickr`, each with the
    ending `.en` and that of the other language, plain or `.gz`. Without a `path` they are read from the subfolder
    `multi30k` of the data folder, which is `$LIGHTNING_XT_DATA` or `lightning-xt` in the user's cache folder; missing
    files are downloaded to it.

    Args:
        path: folder of the files; nothing is downloaded to it. `~` is the home folder; a relative path is looked up in
            the current folder, then in the data folder. None means the data folder's subfolder `multi30k`.
        languages: source and target language, as in the endings of the files: en, de, fr or cs.
        base_url: URL of the folder from which missing files are downloaded.
        pairs: the options of `PairCorpus`.

    Examples:
        >>> from lightning_xt import Multi30k
        >>> data = Multi30k(languages=("en", "fr"), max_tokens=2048)
        >>> data.vocab["pad"], data.vocab["start"], data.vocab["end"]
        (0, 1, 2)
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        languages: tuple[str, str] = ("en", "de"),
        base_url: str = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw",
        **pairs: Any,
    ) -> None:
        super().__init__(**pairs)
        known = all(re.fullmatch("[A-Za-z]+", language) for language in languages)
        if len(languages) != 2 or languages[0] == languages[1] or not known:
            raise ValueError(
                f"--data.languages must be two different ones, not {list(languages)}; write the source first, such as "
                "--data.languages '[en, de]'"
            )
        self.path = path
        self.languages = tuple(languages)
        # The field of the source where `predict` reads JSON lines.
        self.source_field = languages[0]
        self.base_url = base_url.rstrip("/")

    def lines(self, split: str) -> PairLines | None:
        """Return the pairs of a split; files that are missing in the data folder are downloaded."""
        source, target = (self._find(f"{NAMES[split]}.{language}") for language in self.languages)
        lines = read_aligned(source, target)
        return drop_blank(lines, self.describe()) if split == "train" else lines

    def describe(self) -> str:
        return "--data Multi30k" if self.path is None else f"--data.path {self.path}"

    def _find(self, name: str) -> Path:
        """Return the path of a file, plain or compressed; download it if `path` is None and it is missing."""
        folder = data_folder().absolute() / "multi30k" if self.path is None else self._find_folder(self.path)
        found = next((folder / each for each in (name, f"{name}.gz") if (folder / each).is_file()), None)
        if found is not None:
            return found
        if self.path is None:
            return _verify(download(f"{self.base_url}/{name}.gz", folder / f"{name}.gz"))
        needed = ", ".join(f"{split}.{language}" for split in NAMES.values() for language in self.languages)
        raise FileNotFoundError(
            f"--data.path {self.path} has neither {name} nor {name}.gz; put {needed} there, plain or .gz, or omit "
            "--data.path to download them"
        )

    @staticmethod
    def _find_folder(path: str) -> Path:
        folder = expand_home(path, f"--data.path {path}")
        if not folder.is_absolute() and not folder.is_dir() and (data_folder() / folder).is_dir():
            return data_folder() / folder
        if not folder.is_dir():
            raise FileNotFoundError(
                f"--data.path {path}: there is no such folder, here or in the data folder {data_folder()}; check the "
                "path, or omit the option to download the files"
            )
        return folder


def _verify(file: Path) -> Path:
    """Return a downloaded file; remove it if it is not gzip, so that the next command does not read it."""
    try:
        for _ in read_blocks(file):
            pass
    except ValueError:
        file.unlink(missing_ok=True)
        raise
    return file
