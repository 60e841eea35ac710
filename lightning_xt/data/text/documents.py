"""Files as documents, and documents as one stream of bytes."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lightning_xt.data.files.archives import ARCHIVES, entries
from lightning_xt.data.files.json_lines import ENDINGS, texts
from lightning_xt.data.files.reading import blocks

Document = Iterable[bytes]
"""The text of a document, a block at a time."""


def documents(path: Path, field: str | None = None) -> Iterator[Document]:
    """The documents in a file: each line of JSON lines, else the whole; likewise for the files in a `.zip`.

    Read each before the next is taken.

    Args:
        path: the file; plain, `.gz` or `.zip`.
        field: which field of each line holds the text; None for plain text.

    Raises:
        ValueError: the file, or one in it, cannot be read as text.
    """
    require_text(path, field)
    if path.suffix.lower() == ".zip":
        for name, content in entries(path):
            _require_text(f"{name} in {path}", name, field)
            yield from _parts(f"{name} in {path}", content, field)
    else:
        yield from _parts(str(path), blocks(path), field)


def require_text(path: Path, field: str | None) -> None:
    """Raises a ValueError for a file whose name says that it is no text, or JSON lines of which no field is named."""
    packed = path.suffix.lower() in (".gz", ".zip")
    _require_text(str(path), path.stem if packed else path.name, field)


def joined(documents: Iterable[Document]) -> Iterator[bytes]:
    """The documents one after the other, with a newline between two where the first does not end in one."""
    ended = True
    for document in documents:
        for number, block in enumerate(filter(None, document)):
            if number == 0 and not ended:
                yield b"\n"
            yield block
            ended = block.endswith(b"\n")


def separated(documents: Iterable[Document], separator: int) -> Iterator[bytes]:
    """The documents one after the other, each opened by the separator; one without text is none."""
    for document in documents:
        for number, block in enumerate(filter(None, document)):
            if number == 0:
                yield bytes([separator])
            yield block


def _parts(name: str, content: Iterator[bytes], field: str | None) -> Iterator[Document]:
    if field is None:
        return iter([content])
    return ([text] for text in texts(content, name, field))


def _require_text(name: str, unpacked: str, field: str | None) -> None:
    if unpacked.lower().endswith(ARCHIVES):
        raise ValueError(
            f"{name} is an archive that is not read here; unpack it by hand and name the files, or leave it out"
        )
    if field is None and unpacked.lower().endswith(ENDINGS):
        raise ValueError(f"{name} is JSON lines; name the field that holds the text, such as --data.field text")
