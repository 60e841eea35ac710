"""Commands that run a Trainer: fit, validate, test and predict. Imports nothing that takes time before one runs."""

from collections.abc import Sequence
from typing import Any

from lightning_xt.system.garbage import freeze_imported
from lightning_xt.system.messages import UserError
from lightning_xt.system.output import optional_output
from lightning_xt.system.shipped_configs import explain_start
from lightning_xt.system.stopping import Stopped


def add_options(parser: Any) -> None:
    """Declare the options of these commands."""
    from lightning_xt.commands.trainer.trainer_options import add_trainer_options

    add_trainer_options(parser)


def run_trainer(command: str, args: Sequence[str]) -> int:
    """Run one of these commands; see `cli.main`."""
    if command == "fit" and not args:
        print(explain_start())
        raise UserError("fit needs a config, such as -c language/quickstart.yaml")
    train(command, args)
    return 0


def train(command: str, args: Sequence[str], callbacks: Sequence[Any] = ()) -> Any:
    """Run one of these commands, and return its `CommandLine`; callbacks are added to the Trainer's."""
    from lightning_xt.commands.models.import_lightning import import_lightning

    with freeze_imported():
        import_lightning()
        from lightning_xt.commands.trainer.cluster import close_process_group
        from lightning_xt.commands.trainer.command_line import CommandLine
        from lightning_xt.commands.trainer.decoding_options import expand_names, shorten_names
        from lightning_xt.commands.trainer.run_choice import add_config_of_run, replace_run

    try:
        with optional_output():
            given = expand_names(command, replace_run(command, args))
            done = CommandLine(command, add_config_of_run(command, given), callbacks)
    except UserError as error:
        error.args = (shorten_names(str(error), args),)
        raise
    except BrokenPipeError as error:
        # Not of the output, which is optional here, and after whose end other commands end quietly.
        raise RuntimeError("the connection to another process broke") from error
    except Stopped as stop:
        if stop.together:
            close_process_group()
        raise
    close_process_group()
    return done
