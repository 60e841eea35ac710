"""The corpus that is always there: Python's own source code."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lightning_xt.data.files.data_folder import store
from lightning_xt.data.files.file_digests import content_hash
from lightning_xt.data.files.reading import raw_blocks
from lightning_xt.data.text.byte_corpus import ByteCorpus
from lightning_xt.data.text.documents import joined
from lightning_xt.data.text.mapped_bytes import MappedBytes
from lightning_xt.data.text.splits import Splits


class StandardLibrary(ByteCorpus):
    """Serves the running interpreter's standard-library sources as bytes; needs no network.

    The `.py` files are sorted by path, without the folders `site-packages`, `dist-packages`, `test`, `tests`,
    `idlelib` and `lib2to3`. Every 20th file is held out for validation; the test split is the validation split. The
    text differs between Python versions, so numbers compare only within one.

    Args:
        seq_len: bytes a window predicts; it holds one more.
        batch_size: windows per training step of one process.
        eval_batch_size: windows per evaluation step of one process; None means `batch_size`.
        stride: bytes from one evaluation window to the next, 1 to `seq_len`; less gives each byte more context and
            takes longer. None means `seq_len`.
        seed: chooses the sequence of training windows.
        num_workers: processes that prepare batches beside each training process; 0 prepares them in it.
        resident: whether the training tokens are copied to the device and windows gathered there; `auto` does so on a
            GPU that has room for four times as many.
        predict_prompts: UTF-8 text file with one prompt per line, for `predict`, or a .jsonl file of objects with a
            `prompt`; None means no prompts.
    """

    def __init__(
        self,
        *,
        seq_len: int = 256,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        stride: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        resident: bool | Literal["auto"] = "auto",
        predict_prompts: str | None = None,
    ) -> None:
        super().__init__(
            seq_len=seq_len,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            stride=stride,
            seed=seed,
            num_workers=num_workers,
            resident=resident,
            predict_prompts=predict_prompts,
        )

    def prepare(self) -> Splits:
        """Joins the sources of each split into one file of the data folder."""
        sources = source_files(standard_library_folder())
        held_out = sources[19::20]
        if not held_out:
            raise ValueError(
                f"{self.describe()} holds {len(sources)} .py files, but the corpus needs at least 20; train on text of "
                "your own with --data TextFiles --data.path FILE_OR_FOLDER"
            )
        training = [path for number, path in enumerate(sources) if number % 20 != 19]
        train, validation = _joined("train", training), _joined("validation", held_out)
        return Splits(train, validation, test=validation)

    def describe(self) -> str:
        return f"the standard library in {standard_library_folder()}"

    def ways_out(self, split: str) -> str:
        return "train on text of your own with --data TextFiles --data.path FILE_OR_FOLDER"


def _joined(split: str, sources: list[Path]) -> MappedBytes:
    """The sources in one file, which is named for what it holds."""

    def text() -> Iterator[bytes]:
        return joined(raw_blocks(path) for path in sources)

    return MappedBytes(store(f"standard_library-{split}", content_hash(text()), text))


def standard_library_folder() -> Path:
    """Where the running interpreter keeps its standard library."""
    return Path(sysconfig.get_path("stdlib"))


def source_files(root: Path) -> list[Path]:
    """The `.py` files below `root` that belong to the corpus, sorted by their path from there."""
    left_out = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
    found = []
    for folder, subfolders, files in os.walk(root):
        # In place: this is how `os.walk` is told where not to go.
        subfolders[:] = [name for name in subfolders if name not in left_out]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted((path for path in found if path.is_file()), key=lambda path: path.relative_to(root).as_posix())
