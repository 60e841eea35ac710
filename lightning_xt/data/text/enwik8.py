"""enwik8: the usual benchmark of byte-level language models."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lightning_xt.data.files.archives import PACKED, read_entries
from lightning_xt.data.files.data_folder import data_folder, store
from lightning_xt.data.files.download import download
from lightning_xt.data.files.file_digests import hash_file
from lightning_xt.data.files.reading import read_blocks
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.splits import Splits
from lightning_xt.data.text.text_corpus import TextCorpus

SIZE = 100_000_000
MD5 = "a1fa5ffddb56f4953e226637dabbb36a"
CANONICAL = (90_000_000, 5_000_000, 5_000_000)


class Enwik8(TextCorpus):
    """Serve the first 100,000,000 bytes of the English Wikipedia of 3 March 2006 (Matt Mahoney).

    http://mattmahoney.net/dc/textdata.html. The data folder, which is `$LIGHTNING_XT_DATA` or `lightning-xt` in the
    user's cache folder, is searched for `enwik8`, `enwik8.gz` and `enwik8.zip`, then its subfolder `enwik8`. If none
    exists, the file is downloaded. Compressed files are unpacked once.

    Args:
        split_sizes: bytes of training, validation and test, in this order from the start; the default is the usual
            split of the literature.
        url: URL of the download if the data folder has no enwik8; the text, or a .gz or .zip file of it.
        md5: checksum of the unpacked text, 32 hexadecimal digits. None means the checksum of enwik8 if the text has
            100,000,000 bytes, else no check.
        windows: the options of `TextCorpus`.
    """

    def __init__(
        self,
        *,
        split_sizes: tuple[int, int, int] = CANONICAL,
        url: str = "http://mattmahoney.net/dc/enwik8.zip",
        md5: str | None = None,
        **windows: Any,
    ) -> None:
        super().__init__(**windows)
        if len(split_sizes) != 3 or min(split_sizes) < 1:
            raise ValueError(
                f"--data.split_sizes must be three numbers of at least 1, not {list(split_sizes)}; set the bytes of "
                "training, validation and test, such as --data.split_sizes '[90000000,5000000,5000000]'"
            )
        if md5 is not None and not re.fullmatch("[0-9A-Fa-f]{32}", md5):
            raise ValueError(
                f"--data.md5 must be 32 hexadecimal digits, not {md5!r}; copy what md5sum prints for the unpacked "
                "text, or omit --data.md5"
            )
        self.split_sizes = tuple(split_sizes)
        self.url = url
        self.md5 = md5

    def prepare(self) -> Splits:
        """Find or download the text, unpack and check it, and cut the splits."""
        folder = data_folder().absolute()
        found = find_enwik8(folder)
        source = found or download(self.url, folder / "enwik8" / f"enwik8{_compression_suffix(self.url)}")
        try:
            text = _unpack(source)
            if problem := self._find_problem(text):
                if text != source:
                    text.unlink(missing_ok=True)
                way_out = "put a good copy in its place" if found else "it was removed, run the command again"
                raise ValueError(f"--data Enwik8: {source} {problem}; {way_out}")
        except ValueError:
            if not found:
                source.unlink(missing_ok=True)
            raise
        train, validation, test = self.split_sizes
        size, needed = text.stat().st_size, train + validation + test
        if size < needed:
            raise ValueError(
                f"--data.split_sizes {list(self.split_sizes)} need {needed:,} bytes together, but {source} holds "
                f"{size:,}; lower --data.split_sizes or put a longer text in its place"
            )
        return Splits(
            train=MappedTokens(text, 0, train),
            validation=MappedTokens(text, train, train + validation),
            test=MappedTokens(text, train + validation, needed),
        )

    def describe(self) -> str:
        return "--data Enwik8"

    def suggestions(self, split: str) -> str:
        return f"raise its size in --data.split_sizes (now {list(self.split_sizes)})"

    def _find_problem(self, text: Path) -> str | None:
        """Describe how a text differs from the expected one; None if it does not."""
        size = text.stat().st_size
        if self.split_sizes == CANONICAL and size != SIZE:
            return f"holds {size:,} bytes, but enwik8 has {SIZE:,} (lower --data.split_sizes to use another text)"
        expected = self.md5 or (MD5 if size == SIZE else None)
        found = hash_file(text, "md5") if expected else None
        if expected and found != expected.lower():
            return f"has the MD5 checksum {found}, not {expected.lower()}"
        return None


def find_enwik8(folder: Path) -> Path | None:
    """Find the text, compressed or not, in a folder or its subfolder `enwik8`; None if neither has it."""
    names = [f"enwik8{kind}" for kind in ("", *PACKED)]
    places = [place / name for place in (folder, folder / "enwik8") for name in names]
    return next((place for place in places if place.is_file()), None)


def _compression_suffix(url: str) -> str:
    """Return the ending of a compressed file's URL; empty if it is not compressed."""
    try:
        ending = PurePosixPath(urlsplit(url).path).suffix.lower()
    except ValueError:
        # An invalid URL, which `download` refuses.
        return ""
    return ending if ending in PACKED else ""


def _unpack(source: Path) -> Path:
    """Return the file of the text; a compressed file is unpacked to the prepared files of the data folder."""
    if source.suffix not in PACKED:
        return source
    content = _read_only_entry if source.suffix == ".zip" else read_blocks
    return store("enwik8", hash_file(source), lambda: with_progress(content(source), f"unpacking {source.name}"))


def _read_only_entry(archive: Path) -> Iterator[bytes]:
    names = [name for name, _ in read_entries(archive)]
    if len(names) != 1:
        raise ValueError(
            f"{archive} holds {len(names)} files, not one; unpack enwik8 yourself and put it next to the archive"
        )
    for _, content in read_entries(archive):
        yield from content
