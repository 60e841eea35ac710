"""fit: train a model."""

from collections.abc import Sequence
from typing import Any

SUMMARY = "train a model:  lightning-xt fit -c configs/language/quickstart.yaml [-c overlay.yaml] [--key value]"


def add_options(parser: Any) -> None:
    """Declare the options of the command."""
    from lightning_xt.commands.trainer.trainer_options import add_trainer_options

    add_trainer_options(parser)


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.commands.trainer.run_trainer import run_trainer

    return run_trainer("fit", args, add_options)
