"""Run of fit, validate, test or predict."""

from collections.abc import Callable, Sequence

from lightning.pytorch.cli import LightningArgumentParser

from lightning_xt.commands.trainer.cluster import close_process_group
from lightning_xt.commands.trainer.command_line import CommandLine
from lightning_xt.commands.trainer.run_choice import add_config_of_run
from lightning_xt.system.stopping import Stopped


def run_trainer(command: str, args: Sequence[str], add_options: Callable[[LightningArgumentParser], None]) -> int:
    """Run fit, validate, test or predict; see `cli.main`.

    Args:
        command: its name.
        args: its options.
        add_options: declares those besides the Trainer's, the model's and the data's.
    """
    try:
        CommandLine(command, add_config_of_run(command, args), add_options)
    except Stopped as stop:
        if stop.together:
            close_process_group()
        raise
    close_process_group()
    return 0
