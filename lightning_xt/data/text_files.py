"""A corpus of one's own."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from lightning_xt.data.byte_corpus import ByteCorpus
from lightning_xt.data.cache import store
from lightning_xt.data.documents import joined
from lightning_xt.data.hashes import content_hash
from lightning_xt.data.mapped_bytes import MappedBytes
from lightning_xt.data.reading import blocks
from lightning_xt.data.splits import Splits


class TextFiles(ByteCorpus):
    """Serves plain text files as bytes.

    The files are joined in the order of their paths, with a newline between two where the first does not end in one,
    and cut into training | validation | test, in this order. A single file is read where it lies; several are copied
    once into the data folder. Neither is held in memory.

    Args:
        path: a file; a folder, of which every file is taken, subfolders included, unless its name or the name of a
            folder on the way begins with a dot; or a pattern such as 'corpus/**/*.txt' (quote it), where ** stands
            for any number of folders. `~` is the home folder.
        validation_fraction: share of the bytes, before the test split, kept for validation; 0 means no validation.
        test_fraction: share of the bytes at the end kept for testing; 0 means no test split.
        seq_len: bytes a window predicts; it holds one more.
        batch_size: windows per training step of one process.
        eval_batch_size: windows per evaluation step of one process; None means `batch_size`.
        stride: bytes from one evaluation window to the next, 1 to `seq_len`; less gives each byte more context and
            takes longer. None means `seq_len`.
        seed: chooses the sequence of training windows.
        num_workers: processes that prepare batches beside each training process; 0 prepares them in it.
        predict_prompts: UTF-8 text file with one prompt per line, for `predict`; None means no prompts.
    """

    def __init__(
        self,
        path: str,
        *,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        seq_len: int = 256,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        stride: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        predict_prompts: str | None = None,
    ) -> None:
        super().__init__(
            seq_len=seq_len,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            stride=stride,
            seed=seed,
            num_workers=num_workers,
            predict_prompts=predict_prompts,
        )
        for option, value in {"validation_fraction": validation_fraction, "test_fraction": test_fraction}.items():
            if not 0 <= value < 1:
                raise ValueError(
                    f"data.{option} must be at least 0 and below 1, not {value}; it is a share of the text, "
                    f"such as --data.{option} 0.05"
                )
        if validation_fraction + test_fraction >= 1:
            raise ValueError(
                f"data.validation_fraction ({validation_fraction}) and data.test_fraction ({test_fraction}) leave "
                "nothing to train on; lower them until their sum is below 1"
            )
        self.path = path
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction

    def prepare(self) -> Splits:
        """Finds the files, joins them where they are several, and cuts the splits."""
        files = find_files(self.path)
        total = sum(file.stat().st_size for file in files)
        if total == 0:
            what = "the file is" if len(files) == 1 else f"all {len(files)} files are"
            raise ValueError(f"--data.path {self.path}: {what} empty; give text to train on")
        if len(files) == 1:
            corpus = files[0].absolute()
            # The first block tells whether it can be read; mapping fails later, and less clearly.
            next(blocks(corpus))
        else:
            corpus = store("text_files", content_hash(_text(files)), lambda: _text(files))
            total = corpus.stat().st_size
        test = int(total * self.test_fraction)
        validation = int(total * self.validation_fraction)
        ends = (total - test - validation, total - test, total)
        return Splits(
            train=MappedBytes(corpus, 0, ends[0]),
            validation=MappedBytes(corpus, ends[0], ends[1]) if self.validation_fraction else None,
            test=MappedBytes(corpus, ends[1], ends[2]) if self.test_fraction else None,
        )

    def describe(self) -> str:
        return f"--data.path {self.path}"

    def ways_out(self, split: str) -> str:
        if split == "train":
            return "give more text"
        fraction = {"validation": self.validation_fraction, "test": self.test_fraction}[split]
        if fraction == 0:
            return f"set --data.{split}_fraction, which is 0, to a share such as 0.05"
        return f"raise --data.{split}_fraction (now {fraction}) or give more text"


def find_files(path: str) -> list[Path]:
    """The files that an option `path` stands for, sorted.

    Raises:
        FileNotFoundError: nothing is there, no file matches, or the folder holds none.
        ValueError: it is neither a file nor a folder.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if root.is_dir():
        files = _files_below(root)
        if not files:
            raise FileNotFoundError(
                f"--data.path {path}: the folder holds no files (those with a leading dot do not count); put text "
                "files there or name another folder"
            )
        return files
    if root.exists():
        raise ValueError(f"--data.path {path} is neither a regular file nor a folder; save the text in a file first")
    if not glob.has_magic(path):
        raise FileNotFoundError(f"--data.path {path}: there is no such file or folder; check the path")
    matches = {Path(match) for match in glob.glob(str(root), recursive=True)}
    files = sorted((match for match in matches if match.is_file()), key=Path.as_posix)
    if not files:
        raise FileNotFoundError(
            f"--data.path {path}: no file matches this pattern; check it, and quote it so that the shell passes it on"
        )
    return files


def _text(files: list[Path]) -> Iterator[bytes]:
    return joined(blocks(path) for path in files)


def _files_below(root: Path) -> list[Path]:
    """Every file in a folder and its subfolders that is not hidden."""
    found = []
    for folder, subfolders, names in os.walk(root):
        # In place: this is how `os.walk` is told where not to go.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted((path for path in found if path.is_file()), key=Path.as_posix)
