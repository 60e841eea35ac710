"""WikiText-103: the usual benchmark of word-level and sub-word language models."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lightning_xt.data.files.archives import read_entries
from lightning_xt.data.files.data_folder import data_folder, store
from lightning_xt.data.files.download import download
from lightning_xt.data.files.file_digests import hash_file
from lightning_xt.data.loading.progress import with_progress
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.splits import Splits
from lightning_xt.data.text.text_corpus import TextCorpus

ARCHIVE = "wikitext-103-raw-v1.zip"
FILES = ("wiki.train.raw", "wiki.valid.raw", "wiki.test.raw")
"""Files of training, validation and test."""


class WikiText103(TextCorpus):
    """Serve WikiText-103: 28,595 articles of the English Wikipedia, about 540 MB, in its own splits.

    Merity et al., 2016, https://arxiv.org/abs/1609.07843; the raw texts, in which no word is replaced by <unk>. The
    data folder, which is `$LIGHTNING_XT_DATA` or `lightning-xt` in the user's cache folder, is searched for
    `wikitext-103-raw-v1.zip` and for a folder `wikitext-103-raw` of its three files. If neither exists, the archive is
    downloaded. It is unpacked once.

    Published perplexities are those of a word: the nats of the split, divided by the words of the tokenized text
    (217,646 of validation, 245,569 of test, ends of lines included), to the power of e.

    Args:
        archive_url: URL of the archive.
        windows: the options of `TextCorpus`.
    """

    def __init__(self, *, archive_url: str = f"https://wikitext.smerity.com/{ARCHIVE}", **windows: Any) -> None:
        super().__init__(**windows)
        self.archive_url = archive_url

    def prepare(self) -> Splits:
        """Find or download the archive, and unpack its three files."""
        folder = data_folder().absolute()
        texts = [folder / "wikitext-103-raw" / name for name in FILES]
        if not all(text.is_file() for text in texts):
            texts = self._unpack(folder)
        return Splits(*(MappedTokens(text) for text in texts))

    def describe(self) -> str:
        return "--data WikiText103"

    def suggestions(self, split: str) -> str:
        return f"put a longer {dict(zip(('train', 'validation', 'test'), FILES, strict=True))[split]} in its place"

    def _unpack(self, folder: Path) -> list[Path]:
        """Return the unpacked files of the archive."""
        places = (folder / ARCHIVE, folder / "wikitext-103-raw" / ARCHIVE)
        found = next((place for place in places if place.is_file()), None)
        archive = found or download(self.archive_url, places[-1])
        try:
            names = {PurePosixPath(name).name for name, _ in read_entries(archive)}
            if missing := [name for name in FILES if name not in names]:
                way_out = "put a good copy in its place" if found else "it was removed, run the command again"
                raise ValueError(f"--data WikiText103: {archive} has no {', '.join(missing)}; {way_out}")
            digest = hash_file(archive)
            return [store(f"wikitext103-{name.split('.')[1]}", digest, _entry(archive, name)) for name in FILES]
        except ValueError:
            if not found:
                archive.unlink(missing_ok=True)
            raise


def _entry(archive: Path, wanted: str) -> Callable[[], Iterator[bytes]]:
    """Return a function that reads a file of the archive."""

    def read() -> Iterator[bytes]:
        for name, content in read_entries(archive):
            if PurePosixPath(name).name == wanted:
                yield from with_progress(content, f"unpacking {wanted}")

    return read
