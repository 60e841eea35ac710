"""How processes that read batches for another are started, and what they do about signals."""

import multiprocessing
import os
import signal
import sys
import threading
from functools import partial
from multiprocessing import forkserver, resource_tracker
from types import TracebackType
from typing import Any

SIGNALS = {signal.SIGTERM, signal.SIGUSR1}


def worker_options(workers: int) -> dict[str, Any]:
    """What a DataLoader is told of its workers.

    They are forked from a process that does nothing else: one that is forked beside the threads by which several
    processes train together hangs now and then.

    Args:
        workers: how many there are.
    """
    # macOS cannot tell who sent a signal; Windows has neither.
    if not workers or not hasattr(signal, "sigwaitinfo"):
        return {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    # Blocked from their beginning, so that a signal to every process of a run does not end them either.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()
        # That ignores SIGTERM by itself, and has let it through again here.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return {"multiprocessing_context": context, "worker_init_fn": partial(outlive_signals, os.getpid())}


def outlive_signals(parent: int, worker: int) -> None:
    """Keeps a loader's worker alive where a signal goes to every process of a run; for `worker_init_fn`.

    The process that trains finishes its step and saves first, for which it may need another batch, and takes a worker
    that dies for a fault. A SIGTERM from there still ends the worker, and so does that process's end, which torch's own
    watch of it does not see: it looks at the process that forked the worker.

    Args:
        parent: the process that it works for.
        worker: its number.
    """
    # Blocked, a signal waits for whoever asks for it, and says where it comes from.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    sys.excepthook = _tell
    for ends, args in ((_end_when_told, (parent,)), (_end_with_parent, ())):
        threading.Thread(target=ends, args=args, daemon=True).start()


def _end_when_told(parent: int) -> None:
    while True:
        told = signal.sigwaitinfo(SIGNALS)
        if told.si_signo == signal.SIGTERM and told.si_pid == parent:
            os._exit(0)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows what a thread of Python has met that hands batches over, but that the process they are for has ended."""
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)
