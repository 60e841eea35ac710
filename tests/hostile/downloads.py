"""Servers that lie, cut off, send another file or redirect."""

import contextlib
import gzip
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hostile.case import Case

TEXT = b"the quick brown fox jumps over the lazy dog\n" * 20
Answer = Callable[[BaseHTTPRequestHandler], None]


def cases() -> Iterator[Case]:
    """Yield all cases of downloads."""
    enwik8 = ["fit", "-c", "tiny.yaml", "--data", "Enwik8", "--data.split_sizes", "[800,40,40]", "--data.url"]
    pairs = ["fit", "-c", "pairs.yaml", "--data", "Multi30k", "--data.path", "null", "--data.base_url"]
    page = _send(b"<!DOCTYPE html><html>please log in</html>")
    for name, answer, path, says in (
        (
            "longer than it is",
            _send(TEXT, length=len(TEXT) + 100),
            "in",
            "the connection ended after 880 of 980 bytes",
        ),
        ("a length that is not a number", _send(TEXT, length="many"), "in", "does not say how long the file is"),
        ("a length below zero", _send(TEXT, length=-5), "in", "does not say how long the file is"),
        ("no length", _send(TEXT, length=None), "in", "does not say how long the file is"),
        ("a page in place of a zip", page, "in.zip", "is cut off, damaged or not a zip file"),
        ("a page in place of gzip", page, "in.gz", "is cut off, damaged or not a gz file"),
        ("a zip of two files", _send(_zip("a", "b")), "in.zip", "holds 2 files, not one"),
        ("a zip that leads outside", _send(_zip("../a")), "in.zip", "points outside the archive"),
        ("a zip that is cut", _send(_zip("a")[:-30]), "in.zip", "is cut off, damaged or not a zip file"),
        ("a bomb", _send(gzip.compress(bytes(70 << 20))), "in.gz", "expands to more than"),
        ("an error", _fail(500), "in", "the server answers 500"),
        ("no such file", _fail(404), "in", "the server answers 404"),
        ("a file of this machine", _redirect("file:///etc/passwd"), "in", "cannot download"),
        ("another protocol", _redirect("ftp://127.0.0.1:1/in"), "in", "cannot download"),
        ("itself, for ever", _redirect("/in"), "in", "cannot download"),
        ("no address", _redirect("http://[nowhere/in"), "in", "cannot download"),
        ("no HTTP", _raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "in", "cannot download"),
        ("nothing at all", _raw(b""), "in", "cannot download"),
    ):
        yield Case(
            name=f"download: {name}", command=[*enwik8, f"URL/{path}"], says=["enwik8", says], server=_serve(answer)
        )
    yield Case(
        name="download: another checksum",
        command=[*enwik8, "URL/in", "--data.md5", "0" * 32],
        says=["has the MD5 checksum", "not " + "0" * 32],
        server=_serve(_send(TEXT)),
    )
    yield Case(
        name="download: pages in place of pairs",
        command=[*pairs, "URL"],
        says=["train.en.gz", "is cut off, damaged or not a gz file"],
        server=_serve(page),
    )
    for url in (
        "file:///etc/passwd",
        "ftp://127.0.0.1/in",
        "in.zip",
        "",
        "javascript:alert(1)",
        "http://",
        "http://[",
        "http://a b/",
    ):
        yield Case(name=f"download: from {url!r}", command=[*enwik8, url], says=["cannot download", url])
    for value in ("0", "x" * 32, "a1fa"):
        yield Case(
            name=f"download: a checksum of {value!r}",
            command=[*enwik8, "http://127.0.0.1:1/in", f"--data.md5={value}"],
            says=["md5", value],
        )
    for value in ("[1,2]", "[0,1,1]", "[1,2,3,4]", "7", "[a,b,c]", "[-1,1,1]"):
        yield Case(
            name=f"download: sizes of {value}",
            command=["fit", "-c", "tiny.yaml", "--data", "Enwik8", "--data.split_sizes", value],
            says=["split_sizes"],
        )


def _serve(answer: Answer) -> Callable[[], contextlib.AbstractContextManager[str]]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                answer(self)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    @contextlib.contextmanager
    def serving() -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    return serving


def _send(content: bytes, length: int | str | None = -1) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        if length is not None:
            to.send_header("Content-Length", str(len(content) if length == -1 else length))
        to.end_headers()
        to.wfile.write(content)

    return answer


def _fail(status: int) -> Answer:
    return lambda to: to.send_error(status)


def _redirect(place: str) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(302)
        to.send_header("Location", place)
        to.send_header("Content-Length", "0")
        to.end_headers()

    return answer


def _raw(content: bytes) -> Answer:
    return lambda to: to.wfile.write(content) and None


def _zip(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return made.getvalue()
