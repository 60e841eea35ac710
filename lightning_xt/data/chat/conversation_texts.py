"""Texts of the conversations of each split."""

from pathlib import Path

from lightning_xt.data.chat.chat_templates import Span
from lightning_xt.data.chat.conversation_files import ConversationReader
from lightning_xt.data.files.file_digests import hash_files
from lightning_xt.data.files.paths import find_files
from lightning_xt.data.held_out import HeldOut, cut_splits

Texts = list[list[Span]]
"""Conversations as spans of text."""


class ConversationTexts:
    """Texts of the conversations of each split, read when they are needed and kept until `forget`.

    Args:
        path: files of all splits, or of those without a path.
        held_out: the validation and the test split.
        reader: reads a file.
    """

    def __init__(self, path: str, held_out: HeldOut, reader: ConversationReader) -> None:
        self.path, self.held_out, self.reader = path, held_out, reader
        self._read: dict[str, Texts] = {}

    def has_split(self, split: str) -> bool:
        """Return True if there is such a split."""
        return split == "train" or self.held_out.paths[split] is not None or self.held_out.fractions[split] > 0

    def hash_files(self) -> list[list[str]]:
        """Return the digests of the files of `path`, and of each split with a path."""
        separate = [split for split, path in self.held_out.paths.items() if path is not None]
        return [hash_files(self._find_files(split)) for split in ("train", *separate)]

    def read(self, split: str) -> Texts:
        """Return the conversations of a split; ValueError if there are none, or a file is malformed."""
        if split != "train" and self.held_out.paths[split] is not None:
            return self._read_once(split)
        if not self.has_split(split):
            raise ValueError(
                f"--data.path {self.path} has no {split} split; set --data.{split}, which is 0, to a fraction such as "
                "0.05 or to a path"
            )
        whole = self._read_once("train")
        begin, end = cut_splits(len(whole), self.held_out.fractions, f"--data.path {self.path}", "conversations")[split]
        return whole[begin:end]

    def forget(self) -> None:
        """Free the memory of the texts."""
        self._read.clear()

    def _read_once(self, split: str) -> Texts:
        if split not in self._read:
            files = self._find_files(split)
            found = self.reader.read(files, "--data.path" if split == "train" else f"--data.{split}")
            if not found:
                what = "the file has" if len(files) == 1 else f"all {len(files)} files have"
                raise ValueError(f"{self._describe(split)}: {what} no conversations; give some, one a line")
            self._read[split] = found
        return self._read[split]

    def _describe(self, split: str) -> str:
        return f"--data.path {self.path}" if split == "train" else f"--data.{split} {self.held_out.paths[split]}"

    def _find_files(self, split: str) -> list[Path]:
        """Find the files of a split; those of other splits are not trained on."""
        if split != "train":
            return find_files(f"--data.{split}", str(self.held_out.paths[split]))
        others = {
            file.resolve()
            for name, path in self.held_out.paths.items()
            if path is not None
            for file in find_files(f"--data.{name}", path)
        }
        files = [file for file in find_files("--data.path", self.path) if file.resolve() not in others]
        if not files:
            raise ValueError(
                f"--data.path {self.path} names no files besides those of --data.validation and --data.test; name "
                "files to train on"
            )
        return files
