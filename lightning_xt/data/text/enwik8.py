"""The corpus that byte models are compared on."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from lightning_xt.data.files.archives import entries
from lightning_xt.data.files.data_folder import data_folder, store
from lightning_xt.data.files.download import download
from lightning_xt.data.files.file_digests import file_hash
from lightning_xt.data.files.reading import blocks
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.text.byte_corpus import ByteCorpus
from lightning_xt.data.text.mapped_bytes import MappedBytes
from lightning_xt.data.text.splits import Splits

SIZE = 100_000_000
MD5 = "a1fa5ffddb56f4953e226637dabbb36a"
PACKED = (".gz", ".zip")
CANONICAL = (90_000_000, 5_000_000, 5_000_000)


class Enwik8(ByteCorpus):
    """Serves the first 100,000,000 bytes of the English Wikipedia of 3 March 2006, as Matt Mahoney cut them.

    http://mattmahoney.net/dc/textdata.html. The data folder, which is `$LIGHTNING_XT_DATA` or `lightning-xt` in the
    user's cache folder, is searched for `enwik8`, `enwik8.gz` and `enwik8.zip`, then its subfolder `enwik8`; where
    there is none, the file is downloaded. What is packed is unpacked once.

    Args:
        split_sizes: bytes of training, validation and test, taken in this order from the start; those of the
            literature unless set.
        url: where to download from if the data folder has no enwik8; the text itself, or packed as .gz or .zip.
        md5: checksum of the unpacked text, 32 hexadecimal digits. None means that of enwik8 if there are 100,000,000
            bytes, else no check.
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
        split_sizes: tuple[int, int, int] = CANONICAL,
        url: str = "http://mattmahoney.net/dc/enwik8.zip",
        md5: str | None = None,
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
        if len(split_sizes) != 3 or min(split_sizes) < 1:
            raise ValueError(
                f"data.split_sizes must be three numbers of at least 1, not {list(split_sizes)}; set the bytes of "
                "training, validation and test, such as --data.split_sizes '[90000000,5000000,5000000]'"
            )
        if md5 is not None and not re.fullmatch("[0-9A-Fa-f]{32}", md5):
            raise ValueError(
                f"data.md5 must be 32 hexadecimal digits, not {md5!r}; copy what md5sum prints for the unpacked text, "
                "or leave --data.md5 away"
            )
        self.split_sizes = tuple(split_sizes)
        self.url = url
        self.md5 = md5

    def prepare(self) -> Splits:
        """Finds the text or downloads it, unpacks and checks it, and cuts the splits."""
        folder = data_folder().absolute()
        found = find_enwik8(folder)
        source = found or download(self.url, folder / "enwik8" / f"enwik8{_packed(self.url)}")
        try:
            text = _unpacked(source)
            if problem := self._problem_with(text):
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
                f"data.split_sizes {list(self.split_sizes)} need {needed:,} bytes together, but {source} holds "
                f"{size:,}; lower --data.split_sizes or put a longer text in its place"
            )
        return Splits(
            train=MappedBytes(text, 0, train),
            validation=MappedBytes(text, train, train + validation),
            test=MappedBytes(text, train + validation, needed),
        )

    def describe(self) -> str:
        return "--data Enwik8"

    def ways_out(self, split: str) -> str:
        return f"raise what --data.split_sizes (now {list(self.split_sizes)}) gives to it"

    def _problem_with(self, text: Path) -> str | None:
        """What makes a text another than the one that was asked for, in words; None if it is the one."""
        size = text.stat().st_size
        if self.split_sizes == CANONICAL and size != SIZE:
            return f"holds {size:,} bytes, but enwik8 has {SIZE:,} (lower --data.split_sizes to use another text)"
        expected = self.md5 or (MD5 if size == SIZE else None)
        found = file_hash(text, "md5") if expected else None
        if expected and found != expected.lower():
            return f"has the MD5 checksum {found}, not {expected.lower()}"
        return None


def find_enwik8(folder: Path) -> Path | None:
    """The text, packed or not, in a folder or its subfolder `enwik8`; None if neither has it."""
    names = [f"enwik8{kind}" for kind in ("", *PACKED)]
    places = [place / name for place in (folder, folder / "enwik8") for name in names]
    return next((place for place in places if place.is_file()), None)


def _packed(url: str) -> str:
    """How the file at a URL is packed, as the ending of its name; empty if it is not."""
    try:
        ending = PurePosixPath(urlsplit(url).path).suffix.lower()
    except ValueError:
        # Nobody can download from there, which `download` says.
        return ""
    return ending if ending in PACKED else ""


def _unpacked(source: Path) -> Path:
    """The text itself, in the data folder's prepared files unless it is not packed."""
    if source.suffix not in PACKED:
        return source
    content = _only_entry if source.suffix == ".zip" else blocks
    return store("enwik8", file_hash(source), lambda: with_progress(content(source), f"unpacking {source.name}"))


def _only_entry(archive: Path) -> Iterator[bytes]:
    names = [name for name, _ in entries(archive)]
    if len(names) != 1:
        raise ValueError(f"{archive} holds {len(names)} files, not one; unpack enwik8 by hand and put it beside it")
    for _, content in entries(archive):
        yield from content
