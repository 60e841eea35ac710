"""Readers of data: they return the written content, and refuse damaged files with one of our sentences."""

import gzip
import io
import json
import re
import tempfile
import zipfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import strategies as st
from properties.holds import call_or_refuse, holds

from lightning_xt.data.files.archives import ARCHIVES, read_entries
from lightning_xt.data.files.json_lines import read_texts
from lightning_xt.data.files.reading import read_blocks
from lightning_xt.data.pairs.pair_files import PairLines, read_aligned, read_pairs
from lightning_xt.data.pairs.source_files import read_sources
from lightning_xt.data.prompt_files import read_prompts
from lightning_xt.data.text.documents import join_documents, read_documents, separate_documents
from lightning_xt.data.text.text_files import TextFiles

BYTES = st.binary(max_size=200)
LINES = st.lists(
    st.text(st.characters(exclude_characters="\r\n\t", codec="utf-8"), max_size=12), min_size=1, max_size=8
)
CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4)
"""Places and their new bytes."""
CUT = st.integers(0, 10_000)


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
    """Return a folder for the files and for the prepared data."""
    made = tmp_path_factory.mktemp("readers")
    with mock.patch.dict("os.environ", LIGHTNING_XT_DATA=str(made / "data")):
        yield made


def write(name: str, content: bytes) -> Path:
    """Write a new file for each example: caches would not see a change within moments."""
    path = Path(tempfile.mkdtemp()) / name
    path.write_bytes(content)
    return path


def damage(content: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    made = bytearray(content)
    for place, byte in changes:
        made[place % len(made)] = byte
    return bytes(made[: len(made) - cut % len(made)] if cut % 2 else made)


def read_all(data: TextFiles) -> bytes:
    splits = data.prepare()
    return b"".join(bytes(part[:]) for part in splits if part is not None and len(part))


@holds(content=BYTES, validation=st.floats(0, 0.49), test=st.floats(0, 0.49))
def test_a_text_is_cut_without_loss(content: bytes, validation: float, test: float) -> None:
    path = write("a.txt", content)
    data = TextFiles(str(path), validation=validation, test=test, seq_len=1)
    splits = call_or_refuse(data.prepare)
    assert (splits is None) == (not content)
    if splits is not None:
        assert read_all(data) == content
        assert len(splits.test or b"") == int(len(content) * test)
        assert len(splits.validation or b"") == int(len(content) * validation)


@holds(contents=st.lists(BYTES, min_size=2, max_size=5), packed=st.lists(st.booleans(), min_size=5, max_size=5))
def test_files_become_one_text(contents: list[bytes], packed: list[bool]) -> None:
    folder = Path(tempfile.mkdtemp())
    for number, (content, gz) in enumerate(zip(contents, packed, strict=False)):
        name = f"{number}.txt.gz" if gz else f"{number}.txt"
        (folder / name).write_bytes(gzip.compress(content) if gz else content)
    expected = b""
    for content in filter(None, contents):
        expected += b"\n" * (bool(expected) and not expected.endswith(b"\n")) + content
    found = call_or_refuse(lambda: read_all(TextFiles(str(folder), validation=0.2, seq_len=1)))
    assert found == (expected or None)


@holds(contents=st.lists(st.lists(BYTES, max_size=3), max_size=5))
def test_documents_are_separated_once(contents: list[list[bytes]]) -> None:
    expected = b"".join(b"\xff" + b"".join(parts) for parts in contents if any(parts))
    assert b"".join(separate_documents(contents, 255)) == expected


@holds(contents=st.lists(st.lists(BYTES, max_size=3), max_size=5))
def test_documents_are_joined_by_at_most_a_newline(contents: list[list[bytes]]) -> None:
    made = b"".join(join_documents(contents))
    expected = b""
    for each in map(b"".join, contents):
        expected += (b"\n" if each and expected and not expected.endswith(b"\n") else b"") + each
    assert made == expected


@holds(content=BYTES)
def test_gzip_comes_back(content: bytes) -> None:
    assert b"".join(read_blocks(write("a.gz", gzip.compress(content)))) == content


@holds(content=BYTES)
def test_any_bytes_as_gzip(content: bytes) -> None:
    assert call_or_refuse(lambda: b"".join(read_blocks(write("a.gz", content)))) is None


@holds(content=BYTES, changes=CHANGES, cut=CUT)
def test_damaged_gzip_is_never_another_text(content: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    path = write("a.gz", damage(gzip.compress(content), changes, cut))
    assert call_or_refuse(lambda: b"".join(read_blocks(path))) in (None, content)


def zip_files(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


NAMES = st.text(st.sampled_from("ab./\\:C_"), min_size=1, max_size=8)


@holds(files=st.dictionaries(NAMES, BYTES, max_size=4))
def test_a_zip_comes_back_or_leads_outside(files: dict[str, bytes]) -> None:
    path = write("a.zip", zip_files(files))
    outside = any(
        name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name) or ".." in name.split("/") for name in files
    )
    found = call_or_refuse(lambda: [(name, b"".join(content)) for name, content in read_entries(path)])
    shown = {
        name: content
        for name, content in files.items()
        if not name.endswith("/") and not any(part.startswith(".") for part in name.split("/"))
    }
    assert found == (None if outside else sorted(shown.items()))


@holds(files=st.dictionaries(st.sampled_from(["a.txt", "b.txt", "c"]), BYTES), changes=CHANGES, cut=CUT)
def test_a_damaged_zip_is_never_another_text(files: dict[str, bytes], changes: list[tuple[int, int]], cut: int) -> None:
    path = write("a.zip", damage(zip_files(files), changes, cut))
    found = call_or_refuse(lambda: [b"".join(content) for _, content in read_entries(path)])
    # A changed name may hide a file or change the order; checksums guard the content.
    assert found is None or {*found} <= {*files.values()}


@holds(content=st.binary(max_size=60), name=st.sampled_from(["a.zip", "a.gz", "a.jsonl", "a.txt", "a.jsonl.gz", "a.b"]))
def test_any_bytes_in_any_file(content: bytes, name: str) -> None:
    path = write(name, content)
    for field in (None, "text"):
        call_or_refuse(lambda field=field: [b"".join(each) for each in read_documents(path, field)])


@holds(lines=LINES, blank=st.booleans(), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=9))
def test_json_lines_come_back_however_they_are_cut(lines: list[str], blank: bool, sizes: list[int]) -> None:
    content = ("\n\n" if blank else "\n").join(json.dumps({"n": 1, "text": line}) for line in lines).encode()
    pieces = []
    for number in range(len(content)):
        size = sizes[number % len(sizes)]
        pieces.append(content[:size])
        content = content[size:]
    assert [text.decode() for text in read_texts(pieces, "file", "text")] == lines


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "a"]), inner, max_size=2),
    max_leaves=5,
)


@holds(value=JSON)
def test_any_json_on_a_line(value: object) -> None:
    line = json.dumps(value)
    found = call_or_refuse(lambda: list(read_texts([line.encode()], "file", "text")))
    good = isinstance(value, dict) and isinstance(value.get("text"), str) and "NaN" not in line
    if good and "Infinity" not in line:
        assert found == [value["text"].encode()]
    elif not good:
        assert found is None


@holds(content=st.binary(max_size=60))
def test_any_bytes_as_json_lines(content: bytes) -> None:
    call_or_refuse(lambda: list(read_texts([content], "file", "text")))


@holds(pairs=st.lists(st.tuples(LINES.map(" ".join), LINES.map(" ".join)), min_size=1, max_size=6), gz=st.booleans())
def test_columns_come_back(pairs: list[tuple[str, str]], gz: bool) -> None:
    content = "".join(f"{source}\t{target}\n" for source, target in pairs).encode()
    path = write("a.tsv.gz", gzip.compress(content)) if gz else write("a.tsv", content)
    marked = pairs[0][0].removeprefix("\ufeff")
    found = read_pairs("--data.path", str(path), None, None)
    assert found == PairLines([marked, *(s for s, _ in pairs[1:])], [target for _, target in pairs])


@holds(content=st.binary(max_size=60) | st.text(st.sampled_from("ab\t\n\r"), max_size=30).map(str.encode))
def test_any_bytes_as_columns(content: bytes) -> None:
    found = call_or_refuse(lambda: read_pairs("--data.path", str(write("a.tsv", content)), None, None))
    if found is not None:
        lines = content.decode().removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
        assert [f"{source}\t{target}" for source, target in zip(*found, strict=True)] == lines


@holds(source=st.binary(max_size=40), target=st.binary(max_size=40))
def test_any_bytes_as_two_files(source: bytes, target: bytes) -> None:
    found = call_or_refuse(lambda: read_aligned(write("a.en", source), write("a.de", target)))
    if found is not None:
        assert len(found.sources) == len(found.targets)
        assert len(found.sources) == source.replace(b"\r\n", b"\n").removesuffix(b"\n").count(b"\n") + 1


@holds(content=st.binary(max_size=60), name=st.sampled_from(["a.txt", "a.jsonl"]), empty=st.booleans())
def test_any_bytes_as_prompts(content: bytes, name: str, empty: bool) -> None:
    found = call_or_refuse(lambda: read_prompts(str(write(name, content)), may_be_empty=empty))
    if found is not None and name == "a.txt":
        lines = content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
        expected = [(number, line.removesuffix(b"\r")) for number, line in enumerate(lines)]
        assert [(each["id"], each["prompt"].encode()) for each in found] == expected


@holds(content=st.binary(max_size=60), field=st.none() | st.just("en"), json_lines=st.booleans())
def test_every_line_is_a_source(content: bytes, field: str | None, json_lines: bool) -> None:
    path = write("a.jsonl" if json_lines else "a.en", content)
    found = call_or_refuse(lambda: read_sources(str(path), field))
    if found is not None:
        assert [each["id"] for each in found] == list(range(len(found)))
        assert all((each["text"] is None) == (each["problem"] is not None) for each in found)
        if not json_lines:
            shown = b"\n".join(each["text"].encode() for each in found if each["text"] is not None)
            lines = content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
            readable = [
                line.removesuffix(b"\r") for line, each in zip(lines, found, strict=True) if each["text"] is not None
            ]
            assert shown == b"\n".join(readable)


def test_names_of_archives_are_small() -> None:
    """The names above are not those of archives within archives."""
    assert not any(ending in "ab./\\:C_" for ending in ARCHIVES)
