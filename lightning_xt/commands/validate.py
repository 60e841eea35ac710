"""validate: measure a model on the validation split."""

from collections.abc import Sequence
from typing import Any

SUMMARY = "measure on the validation split:  lightning-xt validate -c runs/NAME/N/config.yaml --ckpt_path best"


def add_options(parser: Any) -> None:
    """Declare the options of the command."""
    from lightning_xt.commands.trainer.trainer_options import add_trainer_options

    add_trainer_options(parser)


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.commands.trainer.run_trainer import run_trainer

    return run_trainer("validate", args, add_options)
