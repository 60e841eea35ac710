"""Files from the network: whole or not at all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from lightning_xt.data.loading.progress import with_progress

BLOCK = 1 << 18  # most bytes read at once


def download(url: str, destination: Path, *, timeout: float = 60.0) -> Path:
    """Fetches a file, from where an earlier attempt stopped if the server still has the same one.

    What arrives is kept in a hidden file beside the destination, and takes its place when it is complete. Of several
    processes one fetches the file and the others wait for it.

    Args:
        url: where it is, over http or https.
        destination: where it goes; a file that is there already is left as it is.
        timeout: seconds without a byte after which to give up.

    Returns:
        The destination.

    Raises:
        ValueError: the URL is of another kind.
        OSError: the network failed, or the disk. What has arrived is kept.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"cannot download {url!r}; give a URL that begins with http:// or https://")
    part, tag, lock = (destination.with_name(f".{destination.name}.{kind}") for kind in ("part", "tag", "lock"))
    arrived = _Arrived(part, tag)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not destination.is_file():
                _fetch(url, arrived, timeout)
                os.replace(part, destination)
                tag.unlink()
            # Who waits for the removed lock finds the file.
            lock.unlink(missing_ok=True)
    except _NetworkError as error:
        kept = f"{arrived.size:,} bytes are kept; " if arrived.version_of(url) else ""
        again = "run the command again to go on" if kept else "run the command again"
        raise OSError(f"cannot download {url} ({error}); {kept}{again}, or put the file at {destination}") from error
    except OSError as error:
        raise OSError(
            f"cannot write {destination} ({error.strerror or error}); make room there or make it writable, or set the "
            "environment variable LIGHTNING_XT_DATA to a folder that is"
        ) from error
    return destination


class _NetworkError(Exception):
    """What went wrong between this machine and the server, in words."""


class _Arrived(NamedTuple):
    """What has arrived of a file.

    Args:
        part: holds its first bytes.
        tag: tells which file it is: the URL, and what the server calls the version.
    """

    part: Path
    tag: Path

    @property
    def size(self) -> int:
        return self.part.stat().st_size

    def version_of(self, url: str) -> str | None:
        """Which version of the file at `url` has begun to arrive; None if nothing has that can be continued."""
        if not self.tag.exists() or not self.part.exists() or self.size == 0:
            return None
        lines = self.tag.read_text(encoding="utf-8", errors="replace").split("\n")
        # A tag that was not written to its end has fewer lines.
        return lines[1] if lines[0] == url and len(lines) == 3 else None

    def begin(self, url: str, answer: HTTPResponse) -> None:
        """Forgets what has arrived, and notes what is about to."""
        self.part.write_bytes(b"")
        version, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        if not version.startswith('"'):
            # A weak ETag, W/"...", does not promise the same bytes.
            version = date
        self.tag.write_text(f"{url}\n{version}\n" if version else "", encoding="utf-8")

    def append(self, answer: HTTPResponse | HTTPError, total: int | None) -> None:
        """Writes what comes, which must end with byte `total` of the file where that is known."""
        done = self.size
        with open(self.part, "ab") as file:
            for block in with_progress(_body(answer), f"downloading {answer.geturl()}", total, done=done):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and self.size != total:
            raise _NetworkError(f"the connection ended after {self.size:,} of {total:,} bytes")


def _fetch(url: str, arrived: _Arrived, timeout: float) -> None:
    """Completes what has arrived, or fetches all where the server does not give the rest of the same file."""
    if version := arrived.version_of(url):
        rest = {"Range": f"bytes={arrived.size}-", "If-Range": version}
        with _ask(url, rest, timeout) as answer:
            given = re.fullmatch(rf"bytes {arrived.size}-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status == 206 and given:
                arrived.append(answer, total=int(given[1]))
                return
    with _ask(url, {}, timeout) as answer:
        if answer.status != 200 or isinstance(answer, HTTPError):
            raise _NetworkError(f"the server answers {answer.status} {answer.reason}")
        if answer.length is None and not answer.chunked:
            raise _NetworkError("the server does not say how long the file is")
        arrived.begin(url, answer)
        arrived.append(answer, total=answer.length)


def _ask(url: str, headers: dict[str, str], timeout: float) -> HTTPResponse | HTTPError:
    """The server's answer, whatever it is, to be read and closed."""
    with _explained():
        try:
            answer: HTTPResponse = urlopen(
                Request(url, headers={"User-Agent": "lightning-xt", **headers}), timeout=timeout
            )
        except HTTPError as error:
            return error
        return answer


def _body(answer: HTTPResponse | HTTPError) -> Iterator[bytes]:
    """What an answer holds, as it comes."""
    while True:
        with _explained():
            block: bytes = answer.read1(BLOCK)
        if not block:
            return
        yield block


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what goes wrong in the network into words."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        # A ValueError is a URL that nobody could ask for.
        cause = error.reason if isinstance(error, URLError) else error
        raise _NetworkError(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__) from error
