"""Downloads: complete or not at all, resumable."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from lightning_xt.data.loading.progress import with_progress
from lightning_xt.system.files import open_new

BLOCK = 1 << 18  # most bytes read at once


def download(url: str, destination: Path, *, timeout: float = 60.0) -> Path:
    """Download a file, resuming an earlier attempt if the server still has the same version.

    The download goes to a hidden file next to the destination, which is moved into place when it is complete. With
    several processes, one downloads and the others wait.

    Args:
        url: an http or https URL.
        destination: path of the file; an existing file is left unchanged.
        timeout: seconds without a byte before giving up.

    Returns:
        The destination.

    Raises:
        ValueError: the URL has another scheme.
        OSError: the network or the disk failed. The part that has arrived is kept.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"cannot download {url!r}; give a URL that begins with http:// or https://")
    part, tag, lock = (destination.with_name(f".{destination.name}.{kind}") for kind in ("part", "tag", "lock"))
    partial = _PartialFile(part, tag)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not destination.is_file():
                _fetch(url, partial, timeout)
                os.replace(part, destination)
                tag.unlink()
            # A process that waits for the removed lock finds the file.
            lock.unlink(missing_ok=True)
    except _NetworkError as error:
        kept = f"{partial.size:,} bytes are kept; " if partial.read_version(url) else ""
        again = "run the command again to resume" if kept else "run the command again"
        raise OSError(f"cannot download {url} ({error}); {kept}{again}, or put the file at {destination}") from error
    except OSError as error:
        raise OSError(
            f"cannot write {destination} ({error.strerror or error}); make room there or make it writable, or set the "
            "environment variable LIGHTNING_XT_DATA to a folder that is"
        ) from error
    return destination


class _NetworkError(Exception):
    """A network failure, in words."""


class _PartialFile(NamedTuple):
    """The part of a download on disk.

    Args:
        part: file of the first bytes.
        tag: file with the URL and the server's name of the version (ETag or date).
    """

    part: Path
    tag: Path

    @property
    def size(self) -> int:
        return self.part.stat().st_size

    def read_version(self, url: str) -> str | None:
        """Return the version of the partial download of `url`; None if there is nothing to resume."""
        if any(file.is_symlink() or not file.exists() for file in (self.tag, self.part)) or self.size == 0:
            return None
        lines = self.tag.read_text(encoding="utf-8", errors="replace").split("\n")
        # An incomplete tag has fewer lines.
        return lines[1] if lines[0] == url and len(lines) == 3 else None

    def begin(self, url: str, answer: HTTPResponse) -> None:
        """Start a new download: empty the part and write its tag."""
        open_new(self.part).close()
        version, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        if not version.startswith('"'):
            # A weak ETag, W/"...", does not promise the same bytes.
            version = date
        with open_new(self.tag) as file:
            file.write(f"{url}\n{version}\n".encode() if version else b"")

    def append(self, answer: HTTPResponse | HTTPError, total: int | None) -> None:
        """Append an answer's body; with `total` known, the file must then have `total` bytes."""
        done = self.size
        with open(self.part, "ab") as file:
            for block in with_progress(_read_body(answer), f"downloading {answer.geturl()}", total, done=done):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and self.size != total:
            raise _NetworkError(f"the connection ended after {self.size:,} of {total:,} bytes")


def _fetch(url: str, partial: _PartialFile, timeout: float) -> None:
    """Complete the partial download, or start again if the server has another version or no ranges."""
    if version := partial.read_version(url):
        headers = {"Range": f"bytes={partial.size}-", "If-Range": version}
        with _request(url, headers, timeout) as answer:
            given = re.fullmatch(rf"bytes {partial.size}-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status == 206 and given:
                partial.append(answer, total=int(given[1]))
                return
    with _request(url, {}, timeout) as answer:
        if answer.status != 200 or isinstance(answer, HTTPError):
            raise _NetworkError(f"the server answers {answer.status} {answer.reason}")
        if answer.length is None and not answer.chunked:
            raise _NetworkError("the server does not say how long the file is")
        partial.begin(url, answer)
        partial.append(answer, total=answer.length)


def _request(url: str, headers: dict[str, str], timeout: float) -> HTTPResponse | HTTPError:
    """Return the server's answer, errors included; the caller closes it."""
    with _network_errors():
        try:
            request = Request(url, headers={"User-Agent": "lightning-xt", **headers})
            answer: HTTPResponse = build_opener(_Redirects).open(request, timeout=timeout)
        except HTTPError as error:
            return error
        return answer


class _Redirects(HTTPRedirectHandler):
    """Redirects that close the connection where the new address is malformed, which the library leaves open."""

    def http_error_302(self, req: Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _read_body(answer: HTTPResponse | HTTPError) -> Iterator[bytes]:
    """Yield the body of an answer."""
    while True:
        with _network_errors():
            block: bytes = answer.read1(BLOCK)
        if not block:
            return
        yield block


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turn errors of the network into `_NetworkError`."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        # A ValueError is an invalid URL.
        cause = error.reason if isinstance(error, URLError) else error
        raise _NetworkError(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__) from error
