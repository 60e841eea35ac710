"""test: measure a model on the test split."""

from collections.abc import Sequence

from lightning_xt.commands.trainer.run_trainer import add_options as add_options
from lightning_xt.commands.trainer.run_trainer import run_trainer

SUMMARY = "measure on the test split:  lightning-xt test RUN"


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    return run_trainer("test", args)
