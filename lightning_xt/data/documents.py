"""Documents as streams, and many of them as one."""

from collections.abc import Iterable, Iterator

Document = Iterable[bytes]
"""The text of a document, a block at a time; no block is empty."""


def joined(documents: Iterable[Document]) -> Iterator[bytes]:
    """The documents one after the other, with a newline between two where the first does not end in one."""
    ended = True
    for document in documents:
        for number, block in enumerate(document):
            if number == 0 and not ended:
                yield b"\n"
            yield block
            ended = block.endswith(b"\n")


def separated(documents: Iterable[Document], separator: int) -> Iterator[bytes]:
    """The documents one after the other, each opened by the separator; one without text is none."""
    for document in documents:
        for number, block in enumerate(document):
            if number == 0:
                yield bytes([separator])
            yield block
