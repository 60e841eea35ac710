"""Downloads from a server in this process that cuts, lies and forgets."""

import errno
import gc
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lightning_xt.data.files.download import download

CONTENT = bytes(range(256)) * 40  # 10,240 bytes


class Server(ThreadingHTTPServer):
    """Server of `content` at every path, which records the headers of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"1"'
        self.date = None
        self.ranges = True
        self.cut = None  # bytes of a body after which the connection ends
        self.reset = False
        self.lengthless = False
        self.chunked = False
        self.status = None
        self.place = None  # address of a redirect
        self.wrong_range = False
        self.requests = []
        self.sent = []

    def handle_error(self, request, client_address):
        """Print nothing: the tests hang up on purpose."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if server.place:
            self.send_response(302)
            self.send_header("Location", server.place)
            self.end_headers()
            return
        if server.status:
            self.send_error(server.status)
            return
        start = self._start()
        body = server.content[start:]
        if start and not body:
            self.send_error(416)
            return
        self._send_headers(start, body)
        if server.chunked:
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:100], body[100:], b""))
        body = body[: server.cut]
        self.wfile.write(body)
        server.sent.append(len(body))
        self.close_connection = True
        if server.reset:
            # Close without waiting: data that the other side has not read are lost.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def _start(self):
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (self.server.etag, self.server.date)
        return int(wanted[1]) if wanted and same and self.server.ranges else 0

    def _send_headers(self, start, body):
        server, size = self.server, len(self.server.content)
        self.send_response(206 if start else 200)
        if start:
            first = 0 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not server.lengthless:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (("ETag", server.etag), ("Last-Modified", server.date)):
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        pass

    protocol_version = "HTTP/1.1"


@contextmanager
def serve():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serve() as server:
        yield server


@pytest.fixture
def file(tmp_path):
    return tmp_path / "data" / "file.bin"


def cut_off(server, file, after=4000):
    """Begin a download that the server ends early."""
    server.cut = after
    with pytest.raises(OSError, match="the connection ended after"):
        download(server.url, file)
    server.cut = None


def test_a_redirect_to_a_malformed_address_leaves_no_connection_open(server, file, recwarn):
    server.place = "http://[nowhere/in"
    with pytest.raises(OSError, match="cannot download"):
        download(server.url, file)
    gc.collect()
    assert [each.message for each in recwarn] == []


def test_a_whole_file(server, file):
    assert download(server.url, file) == file
    assert file.read_bytes() == CONTENT
    assert os.listdir(file.parent) == ["file.bin"]
    assert [request["User-Agent"] for request in server.requests] == ["lightning-xt"]
    assert "Range" not in server.requests[0]


def test_an_existing_file_is_kept(server, file):
    file.parent.mkdir()
    file.write_bytes(b"mine")
    assert download(server.url, file) == file
    assert file.read_bytes() == b"mine" and server.requests == []


def test_a_cut_connection_says_what_is_kept_and_what_to_do(server, file):
    server.cut = 4000
    sentence = (
        rf"cannot download {server.url} \(the connection ended after 4,000 of 10,240 bytes\); 4,000 bytes are kept; "
        rf"run the command again to resume, or put the file at {file}$"
    )
    with pytest.raises(OSError, match=sentence):
        download(server.url, file)
    assert not file.exists()
    assert (file.parent / ".file.bin.part").read_bytes() == CONTENT[:4000]


def test_a_connection_cut_before_the_first_byte(server, file):
    server.cut = 0
    with pytest.raises(OSError, match=r"ended after 0 of 10,240 bytes\); run the command again, or put the file at"):
        download(server.url, file)
    server.cut = None
    download(server.url, file)
    assert file.read_bytes() == CONTENT and "Range" not in server.requests[1]


def test_a_connection_that_is_reset(server, file):
    server.cut, server.reset = 4000, True
    with pytest.raises(OSError, match=rf"cannot download {server.url} \(Connection reset by peer\); .*put the file at"):
        download(server.url, file)
    assert not file.exists()
    server.cut, server.reset = None, False
    download(server.url, file)
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"1"', None, 'W/"1"'], ids=["etag", "date", "weak etag"])
def test_the_rest_is_fetched_where_the_first_attempt_stopped(server, file, etag):
    server.etag, server.date = etag, "Sat, 04 Mar 2006 00:00:00 GMT"
    cut_off(server, file)
    download(server.url, file)
    assert file.read_bytes() == CONTENT
    assert server.sent == [4000, 6240]
    assert server.requests[1]["Range"] == "bytes=4000-"
    assert server.requests[1]["If-Range"] == ('"1"' if etag == '"1"' else server.date)
    assert os.listdir(file.parent) == ["file.bin"]


def test_the_bar_begins_where_the_first_attempt_stopped(server, file, monkeypatch):
    shown = []

    def bar(blocks, what, total, *, done):
        shown.append((what, total, done))
        return blocks

    monkeypatch.setattr("lightning_xt.data.files.download.with_progress", bar)
    cut_off(server, file)
    download(server.url, file)
    what = f"downloading {server.url}"
    assert shown == [(what, 10240, 0), (what, 10240, 4000)]


def test_several_cuts(server, file):
    cut_off(server, file)
    cut_off(server, file)
    assert (file.parent / ".file.bin.part").stat().st_size == 8000
    download(server.url, file)
    assert file.read_bytes() == CONTENT and server.sent == [4000, 4000, 2240]


def test_a_server_without_ranges_starts_over(server, file):
    cut_off(server, file)
    server.ranges = False
    download(server.url, file)
    assert file.read_bytes() == CONTENT


def test_a_file_that_changed_between_starts_over(server, file):
    cut_off(server, file)
    server.content, server.etag = CONTENT[::-1] + b"more", '"2"'
    download(server.url, file)
    assert file.read_bytes() == server.content
    assert server.requests[1]["If-Range"] == '"1"' and "Range" not in server.requests[2]


def test_a_server_without_versions_starts_over(server, file):
    server.etag, server.cut = 'W/"1"', 4000
    with pytest.raises(OSError, match=r"10,240 bytes\); run the command again, or put"):
        download(server.url, file)
    server.cut = None
    download(server.url, file)
    assert file.read_bytes() == CONTENT and "Range" not in server.requests[1]


def test_another_url_starts_over(server, file):
    cut_off(server, file)
    download(server.url + "?mirror", file)
    assert file.read_bytes() == CONTENT and "Range" not in server.requests[1]


def test_another_range_than_asked_for_starts_over(server, file):
    cut_off(server, file)
    server.wrong_range = True
    download(server.url, file)
    assert file.read_bytes() == CONTENT and len(server.requests) == 3


def test_a_tag_that_was_not_written_to_its_end_starts_over(server, file):
    cut_off(server, file)
    (file.parent / ".file.bin.tag").write_text(f'{server.url}\n"')
    download(server.url, file)
    assert file.read_bytes() == CONTENT and "Range" not in server.requests[1]


@pytest.mark.parametrize("content", [CONTENT, CONTENT + b"longer than the file"], ids=["complete", "too long"])
def test_a_part_file_is_never_taken_for_the_file(server, file, content):
    cut_off(server, file)
    (file.parent / ".file.bin.part").write_bytes(content)  # the server answers 416
    download(server.url, file)
    assert file.read_bytes() == CONTENT and server.requests[1]["Range"] == f"bytes={len(content)}-"
    assert len(server.requests) == 3


def test_a_download_resumes_after_a_killed_process(server, file):
    # Larger than any buffer between server and client, so that the process is killed before the end.
    server.content = CONTENT * 4000
    script = f"""
import os, signal
from pathlib import Path
from lightning_xt.data.files import download

def kill(blocks, *args, **options):
    for number, block in enumerate(blocks):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield block

download.with_progress = kill
download.download({server.url!r}, Path({str(file)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    kept = (file.parent / ".file.bin.part").stat().st_size
    assert 0 < kept < len(server.content) and not file.exists()
    download(server.url, file)
    assert server.requests[1]["Range"] == f"bytes={kept}-"
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(server.content).digest()


def test_two_processes_at_once_download_once(server, file):
    server.content = CONTENT * 400
    script = f"""
import sys
from pathlib import Path
from lightning_xt.data.files.download import download

print("ready", flush=True)
sys.stdin.readline()
file = download({server.url!r}, Path({str(file)!r}))
print(file.stat().st_size)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", script], **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == [f"{len(server.content)}\n"] * 2
    assert len(server.requests) == 1 and os.listdir(file.parent) == ["file.bin"]


def test_a_chunked_answer_has_an_end(server, file):
    server.chunked = True
    download(server.url, file)
    assert file.read_bytes() == CONTENT


def test_a_chunked_answer_that_is_cut_off(server, file):
    server.chunked, server.cut = True, 4000
    with pytest.raises(OSError, match=r"IncompleteRead.* bytes are kept; run the command again to resume"):
        download(server.url, file)
    assert not file.exists()


def test_a_server_that_does_not_say_how_long_the_file_is(server, file):
    server.lengthless = True
    with pytest.raises(OSError, match=rf"the server does not say how long the file is\).* put the file at {file}$"):
        download(server.url, file)
    assert not file.exists()


@pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_a_server_that_refuses(server, file, status, reason):
    server.status = status
    sentence = rf"cannot download {server.url} \(the server answers {reason}\); run the command again, or put the file"
    with pytest.raises(OSError, match=sentence):
        download(server.url, file)
    assert not file.exists()


def test_a_server_that_refuses_for_now_costs_nothing_that_has_arrived(server, file):
    cut_off(server, file)
    server.status = 503
    with pytest.raises(
        OSError, match=r"503 Service Unavailable\); 4,000 bytes are kept; run the command again to resume"
    ):
        download(server.url, file)
    server.status = None
    download(server.url, file)
    assert file.read_bytes() == CONTENT and server.sent == [4000, 6240]


def test_nobody_answers(file):
    with serve() as server:
        url = server.url
    with pytest.raises(OSError, match=rf"cannot download {url} \(Connection refused\); run the command again, or put"):
        download(url, file)


def test_a_server_that_falls_silent(server, file, monkeypatch):
    monkeypatch.setattr(Handler, "_start", lambda self: threading.Event().wait(0.5) or 0)
    with pytest.raises(OSError, match=r"\(timed out\); run the command again"):
        download(server.url, file, timeout=0.05)


@pytest.mark.parametrize(
    ("rest", "reason"),
    [("host:port/x", "nonnumeric port"), ("[::1", "Invalid IPv6 URL"), ("127.0.0.1:1/\u20ac", "can't encode")],
)
def test_a_url_that_cannot_be_asked_for(file, rest, reason):
    with pytest.raises(OSError, match=rf"cannot download http://.*{reason}"):
        download(f"http://{rest}", file)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "enwik8.zip"])
def test_another_kind_of_url(file, url):
    with pytest.raises(ValueError, match=rf"cannot download '{url}'; give a URL that begins with http:// or https://"):
        download(url, file)
    assert not file.parent.exists()


def test_a_full_disk_keeps_what_has_arrived(server, file, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=rf"cannot write {file} \(No space left on device\); make room.*XT_DATA"):
            download(server.url, file)
    assert not file.exists() and (file.parent / ".file.bin.part").exists()
    download(server.url, file)
    assert file.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*data/file.bin \(File exists\); make room.*LIGHTNING_XT_DATA"):
        download(server.url, tmp_path / "data" / "file.bin")
    assert server.requests == []
