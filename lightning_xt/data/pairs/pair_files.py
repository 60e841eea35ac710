"""Readers of files of text pairs."""

from collections.abc import Callable
from functools import partial
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.data.files.archives import ARCHIVES
from lightning_xt.data.files.json_lines import ENDINGS, parse_field
from lightning_xt.data.files.paths import find_files
from lightning_xt.data.files.reading import read_blocks

COLUMNS = (".tsv",)
"""Endings of files with a source, a tab and a target on every line."""


class PairLines(NamedTuple):
    """Sources and their targets, line by line.

    Args:
        sources: one text a line.
        targets: the text that belongs to each source.
    """

    sources: list[str]
    targets: list[str]


def read_pairs(option: str, path: str, target_path: str | None, fields: tuple[str, str] | None) -> PairLines:
    """Read pairs from two files of lines, from one with two columns, or from one of JSON lines; each plain or `.gz`.

    Args:
        option: the option that named the file, such as `--data.path`; the other is `--data.target_path`.
        path: the file of the sources, or of both sides; looked up in the current folder, then in the data folder.
        target_path: the file of the targets; None means that `path` holds both.
        fields: names of the source and the target in the objects of JSON lines.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be read, or does not hold pairs.
    """
    target_option = "--data.target_path" if option == "--data.path" else f"{option}_target_path"
    file = _find_one(option, path)
    read_both = _select_reader(file, fields)
    if target_path is not None:
        if read_both is not None:
            raise ValueError(
                f"{option} {path} holds sources and targets; omit {target_option}, or name a file of plain lines"
            )
        return read_aligned(file, _find_one(target_option, target_path))
    if read_both is None:
        raise ValueError(
            f"{option} {path} holds one side of the pairs; name the file of their targets with {target_option}, or "
            "give both sides in one .tsv or .jsonl file"
        )
    return read_both(file)


def read_aligned(source_file: Path, target_file: Path) -> PairLines:
    """Read two files, whose lines n are source and target; ValueError if one is empty, unreadable or has more lines."""
    pairs = PairLines(_read_lines(source_file), _read_lines(target_file))
    if len(pairs.sources) != len(pairs.targets):
        raise ValueError(
            f"{source_file} has {len(pairs.sources):,} lines, but {target_file} has {len(pairs.targets):,}; give two "
            "files with the same number of lines"
        )
    return pairs


def drop_blank(pairs: PairLines, name: str) -> PairLines:
    """Drop pairs with a blank side, and report how many of `name` they are; ValueError if no pair is left."""
    kept = [bool(source.strip() and target.strip()) for source, target in zip(*pairs, strict=True)]
    dropped = kept.count(False)
    if not dropped:
        return pairs
    if dropped == len(kept):
        raise ValueError(f"{name}: every pair has a blank side; give pairs with text on both sides")
    rank_zero_info(f"{name}: {dropped:,} of {len(kept):,} training pairs have a blank side and are dropped")
    return PairLines(list(compress(pairs.sources, kept)), list(compress(pairs.targets, kept)))


def _find_one(option: str, path: str) -> Path:
    """Return the one file that an option names."""
    files = find_files(option, path)
    if len(files) != 1:
        raise ValueError(f"{option} {path} names {len(files)} files; name one")
    return files[0]


def _select_reader(file: Path, fields: tuple[str, str] | None) -> Callable[[Path], PairLines] | None:
    """Return the reader of a file with both sides; None for plain lines, which hold one side.

    ValueError for an archive, and for JSON lines without the names of their fields.
    """
    name = (file.stem if file.suffix.lower() == ".gz" else file.name).lower()
    if name.endswith(ARCHIVES):
        raise ValueError(f"{file} is an archive, which is not read here; unpack it and name one of its files")
    if name.endswith(COLUMNS):
        return _read_columns
    if not name.endswith(ENDINGS):
        return None
    if fields is None:
        raise ValueError(
            f"{file} is JSON lines; name the fields of source and target, such as --data.fields '[en, de]'"
        )
    return partial(_read_objects, fields=fields)


def _read_columns(file: Path) -> PairLines:
    pairs = PairLines([], [])
    for number, line in enumerate(_read_lines(file), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            shown = "1 column" if len(columns) == 1 else f"{len(columns)} columns"
            raise ValueError(f"{file}, line {number} has {shown}, not 2; write a source, one tab and its target there")
        pairs.sources.append(columns[0])
        pairs.targets.append(columns[1])
    return pairs


def _read_objects(file: Path, fields: tuple[str, str]) -> PairLines:
    pairs = PairLines([], [])
    for number, line in enumerate(_read_lines(file), start=1):
        if line.strip():
            for side, field in zip(pairs, fields, strict=True):
                side.append(parse_field(line.encode("utf-8"), f"{file}, line {number}", field, chosen=False))
    if not pairs.sources:
        raise ValueError(f"{file} is empty; give pairs")
    return pairs


def _read_lines(file: Path) -> list[str]:
    """Read the lines of a UTF-8 file; ValueError if it cannot be read, is empty or is not UTF-8.

    A line ends in a newline, or a carriage return and a newline.
    """
    content = b"".join(read_blocks(file))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        begin = content.rfind(b"\n", 0, error.start) + 1
        number = content.count(b"\n", 0, begin) + 1
        raise ValueError(
            f"{file}, line {number}: byte {error.start - begin} of the line is not UTF-8; save the file as UTF-8"
        ) from error
    # Some Windows programs start a file with a byte order mark.
    text = text.removeprefix("\ufeff")
    if not text:
        raise ValueError(f"{file} is empty; give pairs")
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
