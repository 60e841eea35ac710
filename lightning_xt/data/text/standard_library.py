"""A corpus that every machine has: the source code of Python's standard library."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lightning_xt.data.files.data_folder import store
from lightning_xt.data.files.file_digests import hash_content
from lightning_xt.data.files.reading import read_raw_blocks
from lightning_xt.data.text.documents import join_documents
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.splits import Splits
from lightning_xt.data.text.text_corpus import TextCorpus


class StandardLibrary(TextCorpus):
    """Serve the standard-library sources of the running interpreter, without a network.

    The `.py` files are sorted by path, without the folders `site-packages`, `dist-packages`, `test`, `tests`,
    `idlelib` and `lib2to3`. Every 20th file is held out for validation; the test split is the validation split. The
    text differs between Python versions, so compare results within one version only.

    Examples:
        >>> from lightning_xt import StandardLibrary
        >>> data = StandardLibrary(seq_len=16, batch_size=4)
        >>> next(iter(data.train_dataloader())).shape
        torch.Size([4, 17])
    """

    def prepare(self) -> Splits:
        """Concatenate the sources of each split into one file of the data folder."""
        sources = list_sources(standard_library_folder())
        held_out = sources[19::20]
        if not held_out:
            raise ValueError(
                f"{self.describe()} has {len(sources)} .py files, but the corpus needs at least 20; train on your own "
                "text with --data TextFiles --data.path FILE_OR_FOLDER"
            )
        training = [path for number, path in enumerate(sources) if number % 20 != 19]
        train, validation = _concatenate("train", training), _concatenate("validation", held_out)
        return Splits(train, validation, test=validation)

    def describe(self) -> str:
        return f"the standard library in {standard_library_folder()}"

    def suggestions(self, split: str) -> str:
        return "train on your own text with --data TextFiles --data.path FILE_OR_FOLDER"


def _concatenate(split: str, sources: list[Path]) -> MappedTokens:
    """Write sources to one file named for its content."""

    def text() -> Iterator[bytes]:
        return join_documents(read_raw_blocks(path) for path in sources)

    return MappedTokens(store(f"standard_library-{split}", hash_content(text()), text))


def standard_library_folder() -> Path:
    """Return the standard-library folder of the running interpreter."""
    return Path(sysconfig.get_path("stdlib"))


def list_sources(root: Path) -> list[Path]:
    """List the `.py` files of the corpus below `root`, sorted by relative path."""
    excluded = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
    found = []
    for folder, subfolders, files in os.walk(root):
        # Changed in place, so that `os.walk` skips the excluded folders.
        subfolders[:] = [name for name in subfolders if name not in excluded]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted((path for path in found if path.is_file()), key=lambda path: path.relative_to(root).as_posix())
