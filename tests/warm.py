"""Commands in separate processes, forked from one that has imported everything (saves a second or two of CPU each).

Tests that depend on the start of Python (its options, its environment, its imports) must start a real process.
"""

import atexit
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LOCK = threading.Lock()


class Command:
    """Process that runs `lightning-xt`, with the interface of `subprocess.Popen`.

    Args:
        arguments: of lightning-xt.
        stdin: file of standard input.
        stdout: file to append to, or a named pipe.
        stderr: file to append to, or a named pipe. None = that of stdout.
        folder: current folder of the process. None = this one.
        environment: variables of the process. None = those of this process.
        limits: limits for `resource.setrlimit`.
        session: begin a session, whose number is the process's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        stdin: str | Path = os.devnull,
        stdout: str | Path = os.devnull,
        stderr: str | Path | None = None,
        folder: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Sequence[tuple[int, int]] = (),
        session: bool = False,
    ) -> None:
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        outputs = [(str(Path(file).absolute()), write) for file in (stdout, stderr or stdout)]
        self.returncode: int | None = None
        self.pid = ask(
            arguments=list(arguments),
            files=[(str(Path(stdin).absolute()), os.O_RDONLY), *outputs],
            folder=str(Path(folder or ".").absolute()),
            environment=dict(os.environ if environment is None else environment),
            limits=list(limits),
            session=session,
        )
        self._ended = os.pidfd_open(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("lightning-xt", timeout or 0)
            os.close(self._ended)
            self.returncode = ask(wait=self.pid)
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def run(
    arguments: Sequence[str], *, content: bytes = b"", timeout: float = 120, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` with text captured.

    Args:
        arguments: of lightning-xt.
        content: standard input.
        timeout: seconds after which it is killed.
        options: of `Command`.
    """
    with tempfile.TemporaryDirectory() as name:
        stdin, stdout, stderr = (Path(name, each) for each in ("stdin", "stdout", "stderr"))
        stdin.write_bytes(content)
        # Pipes, because a limit on the size of files would hold for these files too.
        os.mkfifo(stdout)
        os.mkfifo(stderr)
        with ThreadPoolExecutor() as readers:
            out, err = (readers.submit(each.read_text) for each in (stdout, stderr))
            command = Command(arguments, stdin=stdin, stdout=stdout, stderr=stderr, **options)
            try:
                code = command.wait(timeout)
            except subprocess.TimeoutExpired:
                os.kill(command.pid, signal.SIGKILL)
                command.wait()
                raise
            return subprocess.CompletedProcess(list(arguments), code, out.result(), err.result())


def ask(**request: Any) -> int:
    """Send a request to the server and return its answer."""
    # Threads share one server, whose answers have the order of its requests.
    with LOCK:
        process = start_server()
        process.stdin.write(f"{json.dumps(request)}\n")
        process.stdin.flush()
        return int(process.stdout.readline())


@functools.cache
def start_server() -> subprocess.Popen[str]:
    """Start the server at the first request; it ends with this process."""
    command = [sys.executable, Path(__file__).with_name("warm_server.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process
