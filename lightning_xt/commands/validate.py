"""validate: measure a model on the validation split."""

from collections.abc import Sequence

from lightning_xt.commands.trainer.run_trainer import add_options as add_options
from lightning_xt.commands.trainer.run_trainer import run_trainer

SUMMARY = "measure on the validation split:  lightning-xt validate RUN"


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    return run_trainer("validate", args)
