"""Files that hold pairs of texts."""

from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.data.files.archives import ARCHIVES
from lightning_xt.data.files.json_lines import ENDINGS, text_of
from lightning_xt.data.files.paths import find_files
from lightning_xt.data.files.reading import blocks

COLUMNS = (".tsv",)
"""How names of files end that hold a source, a tab and a target on every line."""


class PairLines(NamedTuple):
    """Texts and what they become.

    Args:
        sources: the texts.
        targets: what each becomes.
    """

    sources: list[str]
    targets: list[str]


def read_pairs(option: str, path: str, target_path: str | None, fields: tuple[str, str] | None) -> PairLines:
    """The pairs in two files of lines, in one of two columns, or in one of JSON lines; each plain or `.gz`.

    Args:
        option: the option that named the file, such as `--data.path`; the other is `--data.target_path`.
        path: the file of the sources, or of both; what is not here is looked for in the data folder.
        target_path: the file of the targets; None means that `path` holds both.
        fields: names of the source and the target in the objects of JSON lines.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file cannot be read, or not as pairs.
    """
    target_option = option.removesuffix("path") + "target_path"
    file = _one_file(option, path)
    both = _reader(file, fields)
    if target_path is not None:
        if both is not None:
            raise ValueError(
                f"{option} {path} holds sources and targets; leave {target_option} away, or name a file of plain lines"
            )
        return aligned(file, _one_file(target_option, target_path))
    if both is None:
        raise ValueError(
            f"{option} {path} holds one side of the pairs; name the file of their targets with {target_option}, or "
            "give both sides in one .tsv or .jsonl file"
        )
    return both(file)


def aligned(source_file: Path, target_file: Path) -> PairLines:
    """The pairs in two files, of which line n of the one becomes line n of the other.

    Raises:
        ValueError: a file is empty or cannot be read, or one has more lines.
    """
    pairs = PairLines(_lines(source_file), _lines(target_file))
    if len(pairs.sources) != len(pairs.targets):
        raise ValueError(
            f"{source_file} has {len(pairs.sources):,} lines, but {target_file} has {len(pairs.targets):,}; give two "
            "files of which each line of one belongs to the same line of the other"
        )
    return pairs


def without_blank(pairs: PairLines, name: str) -> PairLines:
    """The pairs of which both sides hold text; how many do not is told.

    Args:
        pairs: all of them.
        name: what messages call them.

    Raises:
        ValueError: none is left.
    """
    kept = [bool(source.strip() and target.strip()) for source, target in zip(*pairs, strict=True)]
    dropped = kept.count(False)
    if not dropped:
        return pairs
    if dropped == len(kept):
        raise ValueError(f"{name}: every pair has a side without text; give pairs of which both sides hold text")
    rank_zero_info(f"{name}: {dropped:,} of {len(kept):,} training pairs have a side without text and are left out")
    return PairLines(list(compress(pairs.sources, kept)), list(compress(pairs.targets, kept)))


def _one_file(option: str, path: str) -> Path:
    """The one file that an option names."""
    files = find_files(option, path)
    if len(files) != 1:
        raise ValueError(f"{option} {path} names {len(files)} files; name one")
    return files[0]


def _reader(file: Path, fields: tuple[str, str] | None) -> Callable[[Path], PairLines] | None:
    """What reads both sides of the pairs in a file; None for plain lines, which hold one side.

    Raises:
        ValueError: it is an archive, or JSON lines of which the fields are not known.
    """
    name = (file.stem if file.suffix.lower() == ".gz" else file.name).lower()
    if name.endswith(ARCHIVES):
        raise ValueError(f"{file} is an archive that is not read here; unpack it by hand and name a file of it")
    if name.endswith(COLUMNS):
        return _columns
    if not name.endswith(ENDINGS):
        return None
    if fields is None:
        raise ValueError(
            f"{file} is JSON lines; name the fields of source and target, such as --data.fields '[en, de]'"
        )
    known = fields
    return lambda file: _objects(file, known)


def _columns(file: Path) -> PairLines:
    pairs = PairLines([], [])
    for number, line in enumerate(_lines(file), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            shown = "1 column" if len(columns) == 1 else f"{len(columns)} columns"
            raise ValueError(f"{file}, line {number} has {shown}, not 2; write a source, one tab and its target there")
        pairs.sources.append(columns[0])
        pairs.targets.append(columns[1])
    return pairs


def _objects(file: Path, fields: tuple[str, str]) -> PairLines:
    pairs = PairLines([], [])
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            for side, field in zip(pairs, fields, strict=True):
                side.append(text_of(line.encode("utf-8"), f"{file}, line {number}", field, chosen=False))
    if not pairs.sources:
        raise ValueError(f"{file} is empty; give pairs")
    return pairs


def _lines(file: Path) -> list[str]:
    """The lines of a file, which end in a newline, or a carriage return and a newline; nothing else ends one.

    Raises:
        ValueError: the file cannot be read, is empty or not UTF-8.
    """
    content = b"".join(blocks(file))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        begin = content.rfind(b"\n", 0, error.start) + 1
        number = content.count(b"\n", 0, begin) + 1
        raise ValueError(
            f"{file}, line {number}: byte {error.start - begin} of the line is not UTF-8; save the file as UTF-8"
        ) from error
    # Some programs of Windows open a file with a mark of its encoding.
    text = text.removeprefix("\ufeff")
    if not text:
        raise ValueError(f"{file} is empty; give pairs")
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
