import os
from collections.abc import Callable
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

LAUNCHED_BY = "LIGHTNING_XT_LAUNCHED_BY"
"""The variable by which a process knows which one launched it."""


class Launcher(_SubprocessScriptLauncher):
    """Starts the command once more for each other process of this machine.

    Lightning's own looks every five seconds whether one of them has failed, and then kills all with itself, before it
    can say why.
    """

    @classmethod
    def replace_in(cls, strategy: Strategy) -> "Launcher | None":
        """Takes the place of Lightning's in a strategy; None where that starts no processes, or in another way."""
        theirs = strategy.launcher
        if type(theirs) is not _SubprocessScriptLauncher:
            return None
        ours = cls(theirs.cluster_environment, theirs.num_processes, theirs.num_nodes)
        strategy._launcher = ours
        return ours

    def call_after_start(self, watch: Callable[[], None]) -> None:
        """What to call when the processes have been started."""
        self._watch = watch

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[LAUNCHED_BY] = str(os.getpid())
            self._call_children_scripts()
            self._watch()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)
