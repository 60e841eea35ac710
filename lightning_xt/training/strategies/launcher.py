import os
from collections.abc import Callable
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

LAUNCHED_BY = "LIGHTNING_XT_LAUNCHED_BY"
"""Environment variable that names the process that launched this one."""


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
