"""Case: a mistake of a user, or a file that they were sent, and the sentence that must answer it."""

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
"""Seconds after which a case counts as hanging; each takes a second or two on a free machine."""
MEMORY = 1 << 30
"""Bytes by which a case may raise the process's peak memory."""
ADDRESSES = 16 << 30
"""Bytes of addresses that a separate process may have."""
LONGEST = 2000
"""Characters of a sentence, which may quote an argument but not the content of a file."""

Content = bytes | str | Callable[[Path], None]
"""Content of a file, or the function that makes the file."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Malformed input.

    Args:
        name: unique name of the case.
        command: command of lightning-xt, with its options.
        says: parts of the sentence; first the option or the file as it was typed.
        files: contents by path, besides a run of each kind.
        stdin: content of standard input.
        environment: additional variables.
        server: server whose address takes the place of URL in the command.
    """

    name: str
    command: Sequence[str]
    says: Sequence[str]
    files: Mapping[str, Content] = field(default_factory=dict)
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    server: Callable[[], contextlib.AbstractContextManager[str]] | None = None


class TooLongError(BaseException):
    """Error: the case was stopped. Not an Exception, so that no handler catches it."""


def find_problems(case: Case, base: Path, folder: Path, *, apart: bool = False) -> list[str]:
    """Return the problems of a case's answer; an empty list if it is right.

    Args:
        case: the case to run.
        base: a folder with finished runs, which is copied.
        folder: a new folder in which the case runs.
        apart: True runs the case in a separate process.
    """
    shutil.copytree(base, folder, symlinks=True)
    for name, content in case.files.items():
        _write(folder / name, content)
    data = folder.with_name(f"{folder.name}-data")
    data.mkdir()
    with case.server() if case.server else contextlib.nullcontext("") as url:
        command = [part.replace("URL", url) if url else part for part in case.command]
        before = hash_tree(folder)
        # Of all processes that have ended, the largest counts.
        who = resource.RUSAGE_CHILDREN if apart else resource.RUSAGE_SELF
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        environment = {"LIGHTNING_XT_DATA": str(data), "no_proxy": "*", **case.environment}
        code, error = (_run_apart if apart else _run_here)(command, case.stdin, environment, folder)
        grown = (resource.getrusage(who).ru_maxrss - peak) * 1024
        after = hash_tree(folder)
    _make_removable(folder)
    found = list(_find_faults(case, code, error))
    found += [f"{name} is {_describe_change(name, before, after)}" for name in sorted(before.keys() | after.keys())
              if before.get(name) != after.get(name)]  # fmt: skip
    # Only hashes of files and unfinished downloads may stay there.
    kept = (".memo", ".lock", ".enwik8.part", ".enwik8.tag")
    left = [path for path in data.rglob("*") if path.is_file() and not path.name.endswith(kept)]
    found += [f"{path} is left in the data folder" for path in left]
    if grown > MEMORY:
        found.append(f"it took {grown >> 20} MiB of memory")
    return found


def hash_tree(folder: Path) -> dict[str, str]:
    """Return all paths below a folder, with a hash of each content."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            found[str(path.relative_to(folder))] = _describe_state(path)
    return found


def _describe_state(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_file() and os.access(path, os.R_OK):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"mode {path.stat().st_mode}"


def _describe_change(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    return "new" if name not in before else "gone" if name not in after else "changed"


def _find_faults(case: Case, code: int | str, error: str) -> Iterator[str]:
    if code != 2:
        yield f"it ends with {code}"
    if "Traceback" in error:
        yield "there is a traceback"
    if not error.startswith(PREFIX) or len(error.splitlines()) != 1 or not error.endswith("\n"):
        yield f"it is not one sentence: {error[:LONGEST]!r}"
    if len(error) > LONGEST:
        yield f"the sentence has {len(error)} characters"
    yield from (f"it does not say {part!r}: {error[:LONGEST]!r}" for part in case.says if part not in error)


def _run_here(
    command: Sequence[str], stdin: bytes, environment: Mapping[str, str], folder: Path
) -> tuple[int | str, str]:
    """Return the exit code, or the traceback that the user would see, and standard error."""
    errors, output = io.StringIO(), io.StringIO()
    here = Path.cwd()
    os.chdir(folder)
    try:
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "path", list(sys.path)),
            # Python would write its bytecode next to a module of the user.
            mock.patch.object(sys, "dont_write_bytecode", True),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stderr(errors),
            contextlib.redirect_stdout(output),
            _limit_time(),
        ):
            code: int | str = main(list(command))
    except TooLongError:
        code = f"no answer within {SECONDS} s"
    except Exception:
        # The interpreter would print this.
        code = "a traceback"
        errors.write(traceback.format_exc())
    finally:
        os.chdir(here)
    # The real standard error escapes these characters too.
    return code, errors.getvalue().encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _limit_time() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _run_apart(
    command: Sequence[str], stdin: bytes, environment: Mapping[str, str], folder: Path
) -> tuple[int | str, str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))

    arguments = [sys.executable, "-m", "lightning_xt", *command]
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            input=stdin,
            capture_output=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
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
