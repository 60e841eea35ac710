"""Separate process for each run of an ablation, so that a run neither sees another one nor ends it."""

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from lightning_xt.system.messages import explain_error, walk_chain

PRELOADED = "lightning_xt.commands.ablation.preloaded"
MOST_OUTPUT = 20_000
"""Bytes of the output of a failed run that are kept."""
PASSING = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that come from outside: from a user, or from a system that lacks memory."""
Target = Callable[..., Any]


class Place(NamedTuple):
    """Part of the machine that a process uses.

    Args:
        threads: threads of the process.
        device: number of its GPU among the visible ones. None = all of them.
    """

    threads: int
    device: int | None = None


class RunError(Exception):
    """Failure of a run.

    Args:
        sentence: the reason, for the row of the table.
        output: end of what the process printed.
        may_pass: whether another try may succeed, such as after a lack of memory.
    """

    def __init__(self, sentence: str, output: str = "", may_pass: bool = False) -> None:
        super().__init__(sentence)
        self.output, self.may_pass = output, may_pass


class ChildProcess:
    """Process that calls a function, forked from one that has imported the package and has run nothing.

    It starts in a few hundredths of a second and is as fresh as a new one. It ends when this process does.

    Args:
        target: function of a module; called with a connection to this process, then the arguments.
        arguments: values for it.
        place: part of the machine that it uses.
    """

    def __init__(self, target: Target, arguments: Sequence[Any], place: Place) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        # Closed by `end`.
        self._output = tempfile.NamedTemporaryFile(prefix="ablate-")  # noqa: SIM115
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, target, tuple(arguments), place, self._output.name), daemon=False
        )
        self._process.start()
        theirs.close()

    def receive(self) -> Any:
        """Wait for a value from the process: one that it sends, or the result; RunError if it fails or ends."""
        try:
            failed, value = self.connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode or 0
            raise RunError(_explain_exit(code), self._read_output(), -code in PASSING) from None
        if failed:
            sentence, may_pass = value
            raise RunError(sentence, self._read_output(), may_pass)
        return value

    def ask(self, request: Any) -> Any:
        """Send a request to the process and wait for its answer."""
        # One that has failed has sent why.
        with suppress(ConnectionError):
            self.connection.send(request)
        return self.receive()

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()
        self._output.close()

    def _read_output(self) -> str:
        self._output.seek(max(0, os.fstat(self._output.fileno()).st_size - MOST_OUTPUT))
        return self._output.read().decode("utf-8", "replace")


def _explain_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), as the system does if memory is short"
    return f"its process ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended with code {code}"


def _serve(connection: Connection, target: Target, arguments: tuple[Any, ...], place: Place, output: str) -> None:
    """Call the function of a process, and send its result."""
    # Ctrl-C is for the first process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        _occupy(place)
        reply = (False, target(connection, *arguments))
    except BaseException as error:
        # Here, for it imports torch.
        from lightning_xt.commands.errors.out_of_memory import is_of_memory

        traceback.print_exc()
        sentence = explain_error(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
        reply = (True, (sentence, any(map(is_of_memory, walk_chain(error)))))
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(reply)
    # Whatever thread is left.
    os._exit(0)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _occupy(place: Place) -> None:
    if place.device is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place.device) if visible is None else visible.split(",")[place.device]
    import torch

    os.environ["OMP_NUM_THREADS"] = str(place.threads)
    torch.set_num_threads(place.threads)
