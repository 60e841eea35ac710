"""A corpus of the user's text files."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from lightning_xt.data.files.archives import PACKED
from lightning_xt.data.files.data_folder import store
from lightning_xt.data.files.file_digests import hash_files, require_unchanged, stat_files
from lightning_xt.data.files.paths import find_files, require_path
from lightning_xt.data.files.reading import read_raw_blocks
from lightning_xt.data.held_out import parse_held_out
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.text.documents import (
    join_documents,
    read_documents,
    require_separated_utf8,
    require_text,
    separate_documents,
)
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.splits import Splits
from lightning_xt.data.text.text_corpus import TextCorpus
from lightning_xt.data.tokenizers.bytes import SEPARATOR

RECIPE = 2  # raised when the same files and options give other bytes, or are refused


class TextFiles(TextCorpus):
    """Serve text files: plain, `.gz`, `.zip`, or JSON lines; one, or many in the order of their paths.

    Each file is a document, and so is each file in a `.zip` (sorted by name, hidden files omitted) and each line of
    JSON lines. The text is split into training | validation | test, in this order, unless a split has files of its
    own; tokens besides bytes divide no character. A single plain file is read in place. Other text is written once to
    the data folder, and again only if a file's content changes. No text is held in memory.

    Args:
        path: a file; a folder, whose files are all read, subfolders included, unless a name begins with a dot; or a
            pattern such as 'corpus/**/*.txt' (quote it), where ** stands for any number of folders. `~` is the home
            folder; a relative path is looked up in the current folder, then in the data folder.
        validation: the fraction of the bytes of `path`, before the test split, that is held out for validation (0
            means no validation); or a path like `path` whose whole text is the validation split. A file that both
            name is not trained on.
        test: the test split likewise; as a fraction it is cut from the end of `path`.
        field: reads every file as JSON lines, one object per line, and takes this string field of each. None means
            plain text.
        documents: `joined` concatenates documents, with a newline after each that does not end in one. `separator`
            puts byte 255, which UTF-8 text never contains, before each, which becomes the end id of a tokenizer of
            sub-words; attention does not cross it, and positions start again there. Text that contains it is refused.
            A single plain file is used as it is: a byte 255 in it separates documents too, if the file is UTF-8
            otherwise.
        windows: the options of `TextCorpus`.

    Examples:
        >>> from pathlib import Path
        >>> from lightning_xt import TextFiles
        >>> written = Path("corpus.txt").write_text("the quick brown fox" * 50)
        >>> data = TextFiles("corpus.txt", seq_len=16, batch_size=4)
        >>> next(iter(data.train_dataloader())).shape
        torch.Size([4, 17])
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        validation: float | str = 0.05,
        test: float | str = 0.05,
        field: str | None = None,
        documents: Literal["joined", "separator"] = "joined",
        **windows: Any,
    ) -> None:
        super().__init__(**windows)
        self.path = require_path(path)
        self.held_out = parse_held_out(validation, test)
        self.field = field
        self._separator_byte = _separator_byte(documents)
        if self._separator_byte is not None:
            self.tokens.separate_documents()

    def prepare(self) -> Splits:
        """Find the files, concatenate them if necessary, and cut the splits."""
        text = self._open_text("path", self.path, self._find_held_out_files())
        sizes = {split: int(len(text) * fraction) for split, fraction in self.held_out.fractions.items()}
        ends = (len(text) - sizes["test"] - sizes["validation"], len(text) - sizes["test"], len(text))
        return Splits(
            train=MappedTokens(text.path, 0, ends[0]),
            validation=self._open_split("validation", MappedTokens(text.path, ends[0], ends[1])),
            test=self._open_split("test", MappedTokens(text.path, ends[1], ends[2])),
        )

    def describe(self) -> str:
        return f"--data.path {self.path}"

    def suggestions(self, split: str) -> str:
        if split == "train":
            return "give more text"
        if path := self.held_out.paths[split]:
            return f"give more text with --data.{split}, which is {path}"
        fraction = self.held_out.fractions[split]
        if fraction == 0:
            return f"set --data.{split}, which is 0, to a fraction such as 0.05 or to a path"
        return f"raise --data.{split} (now {fraction}) or give more text"

    def _open_split(self, split: str, part: MappedTokens) -> MappedTokens | None:
        path = self.held_out.paths[split]
        if path is not None:
            return self._open_text(split, path)
        return part if self.held_out.fractions[split] else None

    def _find_held_out_files(self) -> set[Path]:
        """Find the files of the validation and test paths, which are not trained on."""
        options = {f"--data.{split}": path for split, path in self.held_out.paths.items() if path is not None}
        return {file.resolve() for option, path in options.items() for file in find_files(option, path)}

    def _open_text(self, option: str, path: str, excluded: Collection[Path] = ()) -> MappedTokens:
        """Return the text of an option as one file, without the excluded files."""
        found = find_files(f"--data.{option}", path)
        files = [file for file in found if file.resolve() not in excluded]
        if not files:
            raise ValueError(
                f"--data.{option} {path} names no files besides those of --data.validation and --data.test; name "
                "files to train on"
            )
        for file in files:
            require_text(file, self.field)
        before = stat_files(files)
        if not any(size for size, *_ in before):
            raise ValueError(_describe_empty(option, path, files))
        packed = any(file.suffix.lower() in PACKED for file in files)
        if len(files) == 1 and not packed and self.field is None:
            # Read the first block: an unreadable file fails here with a clearer message than mapping gives.
            next(read_raw_blocks(files[0]))
            if self._separator_byte is not None:
                require_separated_utf8(files[0], self._separator_byte)
            return MappedTokens(files[0].absolute())

        def text() -> Iterator[bytes]:
            known_size = None if packed or self.field else sum(size for size, *_ in before)
            empty = True
            for block in with_progress(self._join(files), f"preparing {path}", known_size):
                empty = False
                yield block
            if empty:
                raise ValueError(_describe_empty(option, path, files))
            require_unchanged(files, before, f"--data.{option} {path}")

        return MappedTokens(store("text_files", self._hash_sources(files), text))

    def _join(self, files: list[Path]) -> Iterator[bytes]:
        found = (document for file in files for document in read_documents(file, self.field, self._separator_byte))
        return (
            join_documents(found) if self._separator_byte is None else separate_documents(found, self._separator_byte)
        )

    def _hash_sources(self, files: list[Path]) -> str:
        """Hash the contents in order and the options of reading, but not the names."""
        kinds = [file.suffix.lower() if file.suffix.lower() in PACKED else "" for file in files]
        sources = list(zip(kinds, hash_files(files), strict=True))
        return hashlib.sha256(repr((RECIPE, self.field, self._separator_byte, sources)).encode()).hexdigest()


def _describe_empty(option: str, path: str, files: list[Path]) -> str:
    what = "the file is" if len(files) == 1 else f"all {len(files)} files are"
    return f"--data.{option} {path}: {what} empty; give text"


def _separator_byte(documents: str) -> int | None:
    """Return the byte before each document, None if documents are joined; ValueError for another option."""
    if documents not in ("joined", "separator"):
        raise ValueError(
            f"--data.documents must be joined or separator, not {documents}; set --data.documents separator"
        )
    return SEPARATOR if documents == "separator" else None
