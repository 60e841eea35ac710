"""Sources that `predict` answers."""

import codecs
from pathlib import Path
from typing import TypedDict

from lightning_xt.data.files.json_lines import ENDINGS, decoded, text_of
from lightning_xt.data.files.reading import whole

OPTION = "--data.predict_source"


class Source(TypedDict):
    """One source: `id` is its line in the file, from 0, by which the outputs of all processes are put in order.

    A line that cannot be read has no text but a problem, which says why.
    """

    id: int
    text: str | None
    problem: str | None


def read_sources(file: str | None, field: str | None = None) -> list[Source]:
    """The sources of a UTF-8 text file, one per line; of a .jsonl file the field of the object on each line.

    Every line is a source, empty ones included, so that outputs can be put beside the lines. A line that cannot be
    read stops nothing.

    Args:
        file: what --data.predict_source was given; plain or `.gz`.
        field: which field of each line of JSON lines holds the text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no file was named, it is empty or cannot be read, or the field of its objects is not known.
    """
    if file is None:
        raise ValueError(f"predict needs sources: give a text file with one source per line, {OPTION} FILE")
    path = Path(file).expanduser()
    of_json = (path.stem if path.suffix.lower() == ".gz" else path.name).lower().endswith(ENDINGS)
    if of_json and field is None:
        raise ValueError(
            f"{OPTION} {file} is JSON lines, but no field is known that holds the source; name it with --data.fields "
            "where the data have this option, or give a text file with one source per line"
        )
    content = whole(OPTION, file, "a text file with one source per line").removeprefix(codecs.BOM_UTF8)
    if not content:
        raise ValueError(f"{OPTION} {file}: the file is empty; write one source per line")
    lines = content.removesuffix(b"\n").split(b"\n")
    sources = []
    for number, line in enumerate(lines):
        place = f"{OPTION} {file}: line {number + 1}"
        sources.append(_source(number, line.removesuffix(b"\r"), place, field if of_json else None))
    return sources


def _source(number: int, line: bytes, place: str, field: str | None) -> Source:
    try:
        if field is None:
            text = decoded(line, place)
        else:
            text = text_of(line, place, field, chosen=False) if line.strip() else ""
    except ValueError as error:
        return Source(id=number, text=None, problem=str(error))
    return Source(id=number, text=text, problem=None)
