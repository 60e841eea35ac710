"""Reader of the sources for `predict`."""

from typing import NotRequired, TypedDict

from lightning_xt.data.files.json_lines import decode_line, is_json_lines, parse_field, split_lines
from lightning_xt.data.files.reading import read_whole
from lightning_xt.data.prompt_files import count_repeats

OPTION = "--data.predict_source"


class Source(TypedDict):
    """One source: `id` is its line in the file, from 0, by which the outputs of all processes are sorted.

    A line that cannot be read has no text; `problem` says why.
    """

    id: int
    text: str | None
    problem: str | None
    repeat: NotRequired[int]
    """Number of equal sources before it, by which their random numbers differ; none = 0."""


def read_sources(file: str | None, field: str | None = None) -> list[Source]:
    """Read the sources of a UTF-8 text file, one per line; of a .jsonl file, one field of the object on each line.

    Every line is a source, empty lines included, so that outputs line up with the file. A line that cannot be read
    does not stop the others.

    Args:
        file: the value of --data.predict_source; plain or `.gz`.
        field: the field of each JSON line that holds the text.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: no file was named, it is empty or cannot be read, or it is JSON lines without `field`.
    """
    if file is None:
        raise ValueError(f"predict needs sources: give a text file with one source per line, {OPTION} FILE")
    of_json = is_json_lines(file)
    if of_json and field is None:
        raise ValueError(
            f"{OPTION} {file} is JSON lines, but the field of the source is not known; name it with --data.fields "
            "if the data have this option, or give a text file with one source per line"
        )
    lines = split_lines(read_whole(OPTION, file, "a text file with one source per line"))
    if not lines:
        raise ValueError(f"{OPTION} {file}: the file is empty; write one source per line")
    sources = []
    for number, line in enumerate(lines):
        place = f"{OPTION} {file}: line {number + 1}"
        sources.append(_parse_source(number, line, place, field if of_json else None))
    count_repeats((each for each in sources if each["text"]), "text")
    return sources


def _parse_source(number: int, line: bytes, place: str, field: str | None) -> Source:
    try:
        if field is None:
            text = decode_line(line, place)
        else:
            text = parse_field(line, place, field, chosen=False) if line.strip() else ""
    except ValueError as error:
        return Source(id=number, text=None, problem=str(error))
    return Source(id=number, text=text, problem=None)
