"""Loader workers: their start, and their handling of signals."""

import multiprocessing
import os
import signal
import sys
import threading
from functools import partial
from multiprocessing import forkserver, resource_tracker
from types import TracebackType
from typing import Any

SIGNALS = frozenset({signal.SIGTERM, signal.SIGUSR1, signal.SIGINT})


def worker_options(workers: int) -> dict[str, Any]:
    """Return the options of a DataLoader with a number of workers.

    Workers are forked from a server process without threads: a fork next to the threads of distributed training hangs
    now and then.
    """
    # macOS does not report the sender of a signal; Windows has no such signals.
    if not workers or not hasattr(signal, "sigwaitinfo"):
        return {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    # Blocked from the start, so that a signal to every process of a run does not end the workers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()
        # The resource tracker ignores SIGTERM by itself, and has unblocked it here.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return {"multiprocessing_context": context, "worker_init_fn": partial(survive_signals, os.getpid())}


def survive_signals(parent: int, worker: int) -> None:
    """Keep a loader worker alive if a signal goes to every process of a run; for `worker_init_fn`.

    The training process, `parent`, finishes its step and saves first; it may need another batch, and a dead worker is
    an error to it. SIGTERM from the training process still ends the worker, and so does that process's end, which
    torch's own watchdog misses: it watches the process that forked the worker.
    """
    # A blocked signal can be waited for, with the id of its sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    sys.excepthook = _hide_lost_parent
    for target, args in ((_exit_on_sigterm, (parent,)), (_exit_with_parent, ())):
        threading.Thread(target=target, args=args, daemon=True).start()


def _exit_on_sigterm(parent: int) -> None:
    while True:
        received = signal.sigwaitinfo(SIGNALS)
        if received.si_signo == signal.SIGTERM and received.si_pid == parent:
            os._exit(0)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _hide_lost_parent(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error, unless it says that the training process has ended."""
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)
