"""A mistake a user may make, or a file they may have been given, and what they must be told."""

import contextlib
import hashlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest import mock

from lightning_xt.cli import main

PREFIX = "lightning-xt: error: "
SECONDS = 180
"""A case that takes longer hangs: each takes a second or two where nothing else runs."""
MEMORY = 1 << 30
"""Bytes by which a case may raise the most memory that the process ever had."""
ADDRESSES = 16 << 30
"""Bytes of addresses that a process of its own may have."""
LONGEST = 2000
"""Characters of a sentence: what was typed may be in it, a file's content may not."""

Content = bytes | str | Callable[[Path], None]
"""What a file holds, or what makes it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One malformed input.

    Args:
        name: tells it apart.
        command: of lightning-xt, with its options.
        says: what the sentence must hold; first the option or the file as it was typed.
        files: what is there beside a run of each kind, by path.
        stdin: what is piped in.
        environment: variables that are set.
        server: what a server answers with; its address takes the place of URL in the command.
    """

    name: str
    command: Sequence[str]
    says: Sequence[str]
    files: Mapping[str, Content] = field(default_factory=dict)
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    server: Callable[[], contextlib.AbstractContextManager[str]] | None = None


class TooLongError(BaseException):
    """The case was stopped; nothing may catch this and go on."""


def problems(case: Case, base: Path, folder: Path, *, apart: bool = False) -> list[str]:
    """What is wrong with how a case is answered; nothing if it is as it should be.

    Args:
        case: it.
        base: a folder with finished runs, which is copied.
        folder: does not exist yet; the case runs there.
        apart: whether it runs in a process of its own.
    """
    shutil.copytree(base, folder, symlinks=True)
    for name, content in case.files.items():
        _write(folder / name, content)
    data = folder.with_name(f"{folder.name}-data")
    data.mkdir()
    with case.server() if case.server else contextlib.nullcontext("") as url:
        command = [part.replace("URL", url) if url else part for part in case.command]
        before = tree(folder)
        # Of all processes that have ended, the largest counts.
        who = resource.RUSAGE_CHILDREN if apart else resource.RUSAGE_SELF
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        environment = {"LIGHTNING_XT_DATA": str(data), "no_proxy": "*", **case.environment}
        code, error = (_in_a_process if apart else _here)(command, case.stdin, environment, folder)
        grown = (resource.getrusage(who).ru_maxrss - peak) * 1024
        after = tree(folder)
    _make_removable(folder)
    found = list(_faults(case, code, error))
    found += [f"{name} is {_change(name, before, after)}" for name in sorted(before.keys() | after.keys())
              if before.get(name) != after.get(name)]  # fmt: skip
    # The hashes of files that were read may be remembered there, and what has arrived of a download, nothing else.
    kept = (".memo", ".lock", ".enwik8.part", ".enwik8.tag")
    left = [path for path in data.rglob("*") if path.is_file() and not path.name.endswith(kept)]
    found += [f"{path} is left in the data folder" for path in left]
    if grown > MEMORY:
        found.append(f"it took {grown >> 20} MiB of memory")
    return found


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, with a hash of what it holds."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            found[str(path.relative_to(folder))] = _state(path)
    return found


def _state(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_file() and os.access(path, os.R_OK):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"mode {path.stat().st_mode}"


def _change(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    return "new" if name not in before else "gone" if name not in after else "changed"


def _faults(case: Case, code: int | str, error: str) -> Iterator[str]:
    if code != 2:
        yield f"it ends with {code}"
    if "Traceback" in error:
        yield "there is a traceback"
    if not error.startswith(PREFIX) or len(error.splitlines()) != 1 or not error.endswith("\n"):
        yield f"it is not told in one sentence: {error[:LONGEST]!r}"
    if len(error) > LONGEST:
        yield f"the sentence has {len(error)} characters"
    yield from (f"it does not say {part!r}: {error[:LONGEST]!r}" for part in case.says if part not in error)


def _here(command: Sequence[str], stdin: bytes, environment: Mapping[str, str], folder: Path) -> tuple[int | str, str]:
    """Exit code, or the traceback that the user would see, and standard error."""
    told, unheard = io.StringIO(), io.StringIO()
    here = Path.cwd()
    os.chdir(folder)
    try:
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "path", list(sys.path)),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stderr(told),
            contextlib.redirect_stdout(unheard),
            _limited(),
        ):
            code: int | str = main(list(command))
    except TooLongError:
        code = f"no answer within {SECONDS} s"
    except Exception:
        # What the interpreter would print.
        code = "a traceback"
        told.write(traceback.format_exc())
    finally:
        os.chdir(here)
    # As the real standard error writes it.
    return code, told.getvalue().encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _in_a_process(
    command: Sequence[str], stdin: bytes, environment: Mapping[str, str], folder: Path
) -> tuple[int | str, str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))

    whole = [sys.executable, "-m", "lightning_xt", *command]
    try:
        done = subprocess.run(
            whole,
            cwd=folder,
            input=stdin,
            capture_output=True,
            timeout=SECONDS,
            env={**os.environ, **environment},
            preexec_fn=limit,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS} s", ""
    return done.returncode, done.stderr.decode("utf-8", "replace")


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode("utf-8")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)


def _make_removable(folder: Path) -> None:
    for root, folders, _ in os.walk(folder):
        for name in folders:
            if not Path(root, name).is_symlink():
                Path(root, name).chmod(0o700)
