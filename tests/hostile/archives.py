"""Archives that are damaged, forged or incomplete."""

import gzip
import io
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.case import Case, Content

TEXT = b"the quick brown fox jumps over the lazy dog\n" * 20
BOMB = 70 << 20
"""Bytes that a bomb expands to, slightly more than the limit."""


def cases() -> Iterator[Case]:
    """Yield all cases of archives."""
    for name, archive, says in [*_zips(), *_forged_zips()]:
        yield Case(
            name=f"archive: zip, {name}", command=_fit("in.zip"), says=["in.zip", says], files={"in.zip": archive}
        )
    for number, (name, archive, says) in enumerate(_gzips()):
        by_fit = number % 4 == 0 or "give text" in says
        command = _fit("in.gz") if by_fit else ["generate", "runs/tiny", "--prompts", "in.gz"]
        yield Case(name=f"archive: gzip, {name}", command=command, says=["in.gz", says], files={"in.gz": archive})
    for file in ("corpus.tar", "corpus.tgz", "corpus.tar.gz", "corpus.bz2", "corpus.xz", "corpus.zst", "corpus.7z"):
        yield Case(
            name=f"archive: {file}",
            command=_fit(file),
            says=[file, "is an archive, which is not read here; unpack it and name"],
            files={file: b"BZh91AY&SY"},
        )
    bad = {"texts/good.txt": TEXT, "texts/bad.zip": _zip({"../evil.txt": TEXT})}
    yield Case(
        name="archive: one bad among good ones",
        command=_fit("texts"),
        says=["texts/bad.zip", "'../evil.txt' points outside the archive"],
        files=bad,
    )
    yield Case(
        name="archive: JSON lines in a zip without a field",
        command=_fit("lines.zip"),
        says=["lines.zip", "is JSON lines; name the field"],
        files={"lines.zip": _zip({"a.jsonl": b'{"text": "a"}\n'})},
    )
    line = b'{"text": "%s"}\n' % (b"a" * 99_988)
    for name, bomb in {"many lines": _gzip_bomb(line), "one line": _gzip_bomb(b"a", b'{"text": "')}.items():
        yield Case(
            name=f"archive: a bomb of JSON lines, {name}",
            command=[*_fit("bomb.jsonl.gz"), "--data.field", "text"],
            says=["bomb.jsonl.gz", "expands to more than"],
            files={"bomb.jsonl.gz": bomb},
        )
    for option, base in (("--data.predict_source", "runs/pairs"), ("--prompts", None)):
        command = ["generate", "runs/tiny"] if base is None else ["predict", "-c", f"{base}/0/config.yaml"]
        more = [] if base is None else ["--ckpt_path", "best", "--output", "out.txt"]
        for name, content, says in (
            ("a bomb", _gzip_bomb(b"a"), "expands to more than"),
            ("cut off", gzip.compress(TEXT)[:-20], "ends too early"),
            ("no gzip", TEXT, "is cut off, damaged or not a gz file"),
        ):
            yield Case(
                name=f"archive: {option} {name}",
                command=[*command, *more, option, "in.gz"],
                says=[f"{option}: in.gz", says],
                files={"in.gz": content},
            )
    for name, content, says in (
        ("a bomb", _gzip_bomb(b"a\n"), "expands to more than"),
        ("cut off", gzip.compress(TEXT)[:-20], "ends too early"),
        ("another checksum", _change(gzip.compress(TEXT), -8), "damaged"),
    ):
        yield Case(
            name=f"archive: pairs {name}",
            command=["fit", "-c", "pairs.yaml", "--data.path", "pairs.en.gz"],
            says=["pairs.en.gz", says],
            files={"pairs.en.gz": content},
        )


def _fit(path: str) -> list[str]:
    return ["fit", "-c", "tiny.yaml", "--data.path", path]


def _zips() -> tuple[tuple[str, Content, str], ...]:
    whole = _zip({"a.txt": TEXT, "b.txt": TEXT})
    outside = "points outside the archive"
    return (
        ("traversal", _zip({"../evil.txt": TEXT}), f"'../evil.txt' {outside}"),
        ("traversal deep in a name", _zip({"a/b/../../../evil.txt": TEXT}), f"'a/b/../../../evil.txt' {outside}"),
        ("traversal by a folder", _zip({"../evil/": b""}), f"'../evil/' {outside}"),
        ("absolute name", _zip({"/etc/evil.txt": TEXT}), f"'/etc/evil.txt' {outside}"),
        ("drive letter", _zip({"C:/evil.txt": TEXT}), f"'C:/evil.txt' {outside}"),
        ("backslashes", _zip({"..\\evil.txt": TEXT}), outside),
        ("link", _zip({"link.txt": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), "'link.txt' is a link"),
        ("device", _zip({"device.txt": b""}, mode=stat.S_IFCHR | 0o666), "'device.txt' is a device"),
        ("block device", _zip({"disk.txt": b""}, mode=stat.S_IFBLK | 0o666), "'disk.txt' is a device"),
        ("pipe", _zip({"pipe.txt": b""}, mode=stat.S_IFIFO | 0o666), "'pipe.txt' is a device"),
        ("zip in a zip", _zip({"inner.zip": whole}), "'inner.zip' is an archive itself"),
        ("gzip in a zip", _zip({"inner.txt.gz": gzip.compress(TEXT)}), "'inner.txt.gz' is an archive itself"),
        (
            "bzip2 inside",
            _zip({"a.txt": TEXT}, method=zipfile.ZIP_BZIP2),
            "is compressed by another method than deflate",
        ),
        ("lzma inside", _zip({"a.txt": TEXT}, method=zipfile.ZIP_LZMA), "is compressed by another method than deflate"),
        ("no entries", _zip({}), "is empty; give text"),
        ("folders alone", _zip({"a/": b"", "a/b/": b""}), "is empty; give text"),
        ("hidden files alone", _zip({".a": TEXT, "__MACOSX/b": TEXT}), "is empty; give text"),
        ("empty files", _zip({"a.txt": b"", "b.txt": b""}), "is empty; give text"),
        ("cut in the middle", whole[: len(whole) // 2], "is cut off, damaged or not a zip file"),
        ("cut before its end", whole[:-10], "is cut off, damaged or not a zip file"),
        ("a text", TEXT, "is cut off, damaged or not a zip file"),
        ("a web page", b"<!DOCTYPE html><title>404</title>", "is cut off, damaged or not a zip file"),
        ("zeros", bytes(5000), "is cut off, damaged or not a zip file"),
        ("bomb", _build_later(lambda: _zip({"zeros.txt": bytes(BOMB)})), "expands to more than 67,108,864 bytes"),
        ("bomb of many", _build_later(_many), "expands to more than 67,108,864 bytes"),
    )


def _forged_zips() -> tuple[tuple[str, Content, str], ...]:
    whole = _zip({"a.txt": TEXT})
    directory = whole.index(b"PK\x01\x02")
    flags = struct.pack("<H", 1)
    damaged = "is cut off, damaged or not a zip file"
    return (
        ("encrypted", whole[: directory + 8] + flags + whole[directory + 10 :], "'a.txt' is encrypted"),
        ("another checksum", _change(whole, directory + 16), damaged),
        ("a lie about the size", _put(whole, directory + 24, struct.pack("<I", 10)), damaged),
        ("a lie about the packed size", _put(whole, directory + 20, struct.pack("<I", 3)), damaged),
        ("an entry far away", _put(whole, directory + 42, struct.pack("<I", 0x7FFFFFFF)), damaged),
        ("no such method", _put(whole, directory + 10, struct.pack("<H", 77)), "by another method than deflate"),
        ("another local name", whole.replace(b"a.txt", b"b.txt", 1), damaged),
        ("a name that is not text", _put(_put(whole, directory + 8, b"\x00\x08"), directory + 46, b"\xff"), damaged),
        ("damaged data", _put(whole, 40, b"\xff\xff\xff\xff"), damaged),
    )


def _gzips() -> Iterator[tuple[str, Content, str]]:
    whole = gzip.compress(TEXT)
    yield "cut in half", whole[: len(whole) // 2], "ends too early"
    yield "cut before its checksum", whole[:-8], "ends too early"
    yield "a header alone", whole[:10], "ends too early"
    yield "half a header", whole[:5], "ends too early"
    yield "nothing", b"", "is empty; give text"
    yield "another checksum of gzip", _change(whole, -8), "damaged"
    yield "another length", _change(whole, -4), "damaged"
    yield "plain text", TEXT, "damaged or not a gz file"
    yield "another method", _change(whole, 2), "damaged or not a gz file"
    yield "a tail that is not gzip", whole + b"tail", "damaged or not a gz file"
    yield "a second part that is cut", whole + whole[:-12], "ends too early"
    yield "changed data", _put(whole, 14, b"\xff\xff\xff"), "damaged"
    yield "gzip of nothing", gzip.compress(b""), "is empty; give text"
    yield "swelling", _gzip_bomb(b"\0"), "expands to more than 67,108,864 bytes"
    yield "swelling in parts", _build_later(lambda: gzip.compress(bytes(BOMB // 20)) * 21), "expands to more than"


def _zip(files: dict[str, bytes], *, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFDIR | 0o755 if name.endswith("/") else mode) << 16
            archive.writestr(entry, content, compress_type=method)
    return made.getvalue()


def _many() -> bytes:
    return _zip({f"{number}.txt": bytes(BOMB // 20) for number in range(21)})


def _gzip_bomb(line: bytes, before: bytes = b"") -> Callable[[Path], None]:
    return _build_later(lambda: gzip.compress(before + line * (BOMB // len(line))))


def _build_later(make: Callable[[], bytes]) -> Callable[[Path], None]:
    """Return a writer that builds the content on use, because that takes a while."""

    def write(path: Path) -> None:
        path.write_bytes(make())

    return write


def _change(content: bytes, place: int) -> bytes:
    """Change one byte."""
    place %= len(content)
    return _put(content, place, bytes([content[place] ^ 1]))


def _put(content: bytes, place: int, other: bytes) -> bytes:
    return content[:place] + other + content[place + len(other) :]
