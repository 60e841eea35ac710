"""Watchdog: every process of a run stops soon after another one dies, with a message."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, NoReturn

import torch
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn

from lightning_xt.checkpoints.runs import explain_restart
from lightning_xt.system.messages import walk_chain
from lightning_xt.system.shared_errors import LAUNCHED_BY
from lightning_xt.system.stopping import PREEMPTED
from lightning_xt.training.callbacks.run_folder import find_run_folder

GRACE = 10.0
"""Seconds that a process has to end by itself after another one; most end at once, without an answer."""
NOTICED = 2.0
"""Seconds until the system reports the end of a process that no longer answers."""
EXIT_CODE = 1
FIRST = "process 0 (the first) ended"
UNKNOWN = "another process does not answer"
LOST_PEER = re.compile(
    r"connection (was likely )?(closed|reset)|broken pipe|remote process|ncclRemoteError|timed? ?out|failed to recv",
    re.IGNORECASE,
)
"""Errors of gloo, NCCL and the rendezvous store for a process that does not answer."""
NO_WAY = re.compile(r"connectFullMesh|unable to (find|resolve)", re.IGNORECASE)
"""Errors of gloo for a process that it has never reached."""


class Launcher(_SubprocessScriptLauncher):
    """Launcher that runs the command once for each further process of this machine.

    Lightning's polls every five seconds for a failed process and then kills all, itself included, before it can say
    why.
    """

    @classmethod
    def replace_in(cls, strategy: Strategy) -> "Launcher | None":
        """Replace Lightning's launcher in a strategy; None if it launches no processes, or in another way."""
        theirs = strategy.launcher
        if type(theirs) is not _SubprocessScriptLauncher:
            return None
        ours = cls(theirs.cluster_environment, theirs.num_processes, theirs.num_nodes)
        strategy._launcher = ours
        return ours

    def call_after_start(self, watch: Callable[[], None]) -> None:
        """Call a function once the processes have been launched."""
        self._watch = watch

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[LAUNCHED_BY] = str(os.getpid())
            self._call_children_scripts()
            self._watch()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def watch(trainer: Trainer) -> None:
    """Stop this process when its launcher dies, or a process that it will launch.

    Other launchers, such as torchrun, do so themselves.
    """
    launcher = Launcher.replace_in(trainer.strategy)
    if launcher is not None:

        def watch_launched() -> None:
            _end_after(lambda: _find_failure(launcher) is not None, lambda: _end_with_launched(trainer, launcher))

        launcher.call_after_start(watch_launched)
    elif _was_launched():
        _end_after(_launcher_has_ended, lambda: _end(trainer, FIRST, trainer.local_rank == 1))


@contextmanager
def exit_together(trainer: Trainer) -> Iterator[None]:
    """Stop this process, with a sentence, when another one does not answer any more.

    ValueError if gloo has not reached one that has not ended.
    """
    try:
        yield
    except RuntimeError as error:
        unreached = any("gloo" in str(each).lower() and NO_WAY.search(str(each)) for each in walk_chain(error))
        if not unreached and not is_lost_peer(error):
            raise
        launcher = trainer.strategy.launcher
        if isinstance(launcher, Launcher) and launcher.procs:
            failed = _wait_for(lambda: _find_failure(launcher) is not None, NOTICED)
            if failed or not unreached:
                _end_with_launched(trainer, launcher)
        lost = _was_launched() and _wait_for(_launcher_has_ended, NOTICED)
        if unreached and not lost:
            raise ValueError(
                f"the processes of the run cannot reach each other by gloo, which agrees on stops ({error}); set "
                "GLOO_SOCKET_IFNAME to the network interface that joins the machines, such as eth0, and "
                "NCCL_SOCKET_IFNAME too"
            ) from error
        # One of the remaining processes prints for all.
        speaks = trainer.local_rank == 1 if lost else not _was_launched() and trainer.local_rank < 2
        _end(trainer, FIRST if lost else UNKNOWN, speaks)


def is_lost_peer(error: BaseException) -> bool:
    """Return True if an error, or one that it was raised from, means that another process does not answer."""
    return any(
        LOST_PEER.search(str(each)) and (isinstance(each, torch.distributed.DistError) or "gloo" in str(each))
        for each in walk_chain(error)
    )


def _end_after(other_has_ended: Callable[[], bool], end: Callable[[], NoReturn]) -> None:
    """End this process, from a thread, if it has not ended by itself some time after another one."""

    def watch_other() -> None:
        while not other_has_ended():
            time.sleep(0.2)
        time.sleep(GRACE)
        end()

    Thread(target=watch_other, daemon=True).start()


def _end_with_launched(trainer: Trainer, launcher: Launcher) -> NoReturn:
    failure = _find_failure(launcher)
    # A process that was still starting could not handle the signal by which all were to stop.
    signalled = any(process.poll() in (-signal.SIGTERM, -signal.SIGUSR1) for process in launcher.procs)
    launcher.kill(signal.SIGKILL)
    _end(trainer, UNKNOWN if failure is None else failure, True, PREEMPTED if signalled else EXIT_CODE)


def _find_failure(launcher: Launcher) -> str | None:
    """Describe the launched process that failed; None while all run."""
    codes = {number: process.poll() for number, process in enumerate(launcher.procs, 1)}
    failed = {number: code for number, code in codes.items() if code}
    if not failed:
        return None
    # Killed processes have negative codes; the others failed because of them.
    number = min(failed, key=lambda each: failed[each])
    code = failed[number]
    how = f"ended with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
    return f"process {number} (the first is 0) {how}"


def _was_launched() -> bool:
    return LAUNCHED_BY in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def _launcher_has_ended() -> bool:
    # An orphan gets another parent.
    return os.environ[LAUNCHED_BY] != str(os.getppid())


def _wait_for(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def _end(trainer: Trainer, why: str, speaks: bool, code: int = EXIT_CODE) -> NoReturn:
    """Exit at once, because an orderly exit would wait for a dead process."""
    if speaks:
        folder = find_run_folder(trainer) if trainer.state.fn == TrainerFn.FITTING else None
        print(f"lightning-xt: stopped, because {why}; {explain_restart(folder)}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
