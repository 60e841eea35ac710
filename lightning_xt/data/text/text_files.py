"""A corpus of one's own."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from lightning_xt.data.files.data_folder import store
from lightning_xt.data.files.file_digests import file_hashes, traces
from lightning_xt.data.files.paths import find_files, named_path
from lightning_xt.data.files.reading import raw_blocks
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.text.byte_corpus import ByteCorpus
from lightning_xt.data.text.documents import documents as documents_in
from lightning_xt.data.text.documents import joined, require_text, separated
from lightning_xt.data.text.fractions import held_out
from lightning_xt.data.text.mapped_bytes import MappedBytes
from lightning_xt.data.text.splits import Splits
from lightning_xt.data.tokenizers.bytes import Bytes

RECIPE = 1  # raised when the same files and options come to give other bytes

PACKED = (".gz", ".zip")

SEPARATOR = 255
"""Opens each document that is kept apart; no UTF-8 text holds this byte."""


class TextFiles(ByteCorpus):
    """Serves text files as bytes: plain, `.gz`, `.zip`, or JSON lines; one, or many in the order of their paths.

    Each file is a document, and so is each file in a `.zip` (in the order of names, hidden ones left out) and each
    line of JSON lines. The text is cut into training | validation | test, in this order, unless these have files of
    their own. A single plain file is read where it lies; anything else is written once into the data folder, and
    again only if a file's content changes. Nothing is held in memory.

    Args:
        path: a file; a folder, of which every file is taken, subfolders included, unless its name or the name of a
            folder on the way begins with a dot; or a pattern such as 'corpus/**/*.txt' (quote it), where ** stands
            for any number of folders. `~` is the home folder; what is not found from here is looked for in the data
            folder.
        validation_path: the same for text that is used whole for validation; nothing is cut from `path` for it, so
            `validation_fraction` has no effect, and a file that `path` names too is left out there. None means a
            share of `path`.
        test_path: the same for testing, instead of `test_fraction`. None means a share of `path`.
        validation_fraction: share of the bytes, before the test split, kept for validation; 0 means no validation.
        test_fraction: share of the bytes at the end kept for testing; 0 means no test split.
        field: reads every file as JSON lines, one object a line, and takes this field of each, a string. None means
            plain text.
        documents: `joined` puts one after the other, with a newline between two where the first does not end in one.
            `separator` opens each by byte 255, which no UTF-8 text holds; there attention stops and positions start
            again. So they do in a text that holds the byte already, such as a single plain file, to which none is
            added.
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
        path: str | None = None,
        *,
        validation_path: str | None = None,
        test_path: str | None = None,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        field: str | None = None,
        documents: Literal["joined", "separator"] = "joined",
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
        self.path = named_path(path)
        self.own_paths = {"validation": validation_path, "test": test_path}
        self.fractions = held_out({"validation": validation_fraction, "test": test_fraction}, self.own_paths)
        self.field = field
        self.separator = _separator(documents)
        self.tokenizer = Bytes(separator=self.separator)

    def prepare(self) -> Splits:
        """Finds the files, writes them as one text where they are not that yet, and cuts the splits."""
        text = self._text("path", self.path, self._held_out_files())
        sizes = {split: int(len(text) * fraction) for split, fraction in self.fractions.items()}
        ends = (len(text) - sizes["test"] - sizes["validation"], len(text) - sizes["test"], len(text))
        return Splits(
            train=MappedBytes(text.path, 0, ends[0]),
            validation=self._held_out("validation", MappedBytes(text.path, ends[0], ends[1])),
            test=self._held_out("test", MappedBytes(text.path, ends[1], ends[2])),
        )

    def describe(self) -> str:
        return f"--data.path {self.path}"

    def ways_out(self, split: str) -> str:
        if split == "train":
            return "give more text"
        if own_path := self.own_paths[split]:
            return f"give more text with --data.{split}_path, which is {own_path}"
        fraction = self.fractions[split]
        if fraction == 0:
            return (
                f"set --data.{split}_fraction, which is 0, to a share such as 0.05, or give text of its own with "
                f"--data.{split}_path"
            )
        return f"raise --data.{split}_fraction (now {fraction}) or give more text"

    def _held_out(self, split: str, share: MappedBytes) -> MappedBytes | None:
        own_path = self.own_paths[split]
        if own_path is not None:
            return self._text(f"{split}_path", own_path)
        return share if self.fractions[split] else None

    def _held_out_files(self) -> set[Path]:
        """The files of the splits that have their own, which are not to be trained on."""
        options = {f"--data.{split}_path": path for split, path in self.own_paths.items() if path is not None}
        return {file.resolve() for option, path in options.items() for file in find_files(option, path)}

    def _text(self, option: str, path: str, without: Collection[Path] = ()) -> MappedBytes:
        """What an option names, as one file, without some files."""
        found = find_files(f"--data.{option}", path)
        files = [file for file in found if file.resolve() not in without]
        if not files:
            raise ValueError(
                f"--data.{option} {path} names no other files than --data.validation_path and --data.test_path; name "
                "some to train on"
            )
        for file in files:
            require_text(file, self.field)
        before = traces(files)
        if not any(size for size, *_ in before):
            raise ValueError(_no_text(option, path, files))
        packed = any(file.suffix.lower() in PACKED for file in files)
        if len(files) == 1 and not packed and self.field is None:
            # The first block tells whether it can be read; mapping fails later, and less clearly.
            next(raw_blocks(files[0]))
            return MappedBytes(files[0].absolute())

        def text() -> Iterator[bytes]:
            known_size = None if packed or self.field else sum(size for size, *_ in before)
            empty = True
            for block in with_progress(self._stream(files), f"preparing {path}", known_size):
                empty = False
                yield block
            if empty:
                raise ValueError(_no_text(option, path, files))
            if traces(files) != before:
                raise ValueError(f"--data.{option} {path} changed while it was read; start again when it is complete")

        return MappedBytes(store("text_files", self._key(files), text))

    def _stream(self, files: list[Path]) -> Iterator[bytes]:
        found = (document for file in files for document in documents_in(file, self.field))
        return joined(found) if self.separator is None else separated(found, self.separator)

    def _key(self, files: list[Path]) -> str:
        """Tells apart what gives other bytes: contents in their order, and how they are read; not names."""
        kinds = [file.suffix.lower() if file.suffix.lower() in PACKED else "" for file in files]
        sources = list(zip(kinds, file_hashes(files), strict=True))
        return hashlib.sha256(repr((RECIPE, self.field, self.separator, sources)).encode()).hexdigest()


def _no_text(option: str, path: str, files: list[Path]) -> str:
    what = "the file is" if len(files) == 1 else f"all {len(files)} files are"
    return f"--data.{option} {path}: {what} empty; give text"


def _separator(documents: str) -> int | None:
    """The byte between documents, None where they are joined.

    Raises:
        ValueError: documents are to be kept in a way that there is not.
    """
    if documents not in ("joined", "separator"):
        raise ValueError(f"data.documents must be joined or separator, not {documents}; set --data.documents separator")
    return SEPARATOR if documents == "separator" else None
