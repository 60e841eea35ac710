"""What processes that read batches for another do about signals."""

import os
import signal
import threading


def outlive_signals(worker: int) -> None:
    """Keeps a loader's worker alive where a signal goes to every process of a run; for `worker_init_fn`.

    The process that trains finishes its step and saves first, for which it may need another batch, and takes a worker
    that dies for a fault. A SIGTERM of its own still ends the worker.

    Args:
        worker: its number.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        # macOS cannot tell who sent a signal, and a worker that no longer ends when told would be left behind.
        return
    # Blocked, a signal waits for whoever asks for it, and says where it comes from.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    while True:
        told = signal.sigwaitinfo({signal.SIGTERM})
        if told.si_pid == parent or os.getppid() != parent:
            os._exit(0)
