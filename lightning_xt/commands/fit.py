"""fit: train a model."""

from collections.abc import Sequence

from lightning_xt.commands.trainer.run_trainer import add_options as add_options
from lightning_xt.commands.trainer.run_trainer import run_trainer

SUMMARY = """train a model:  lightning-xt fit -c language/quickstart.yaml [-c overlay.yaml] [--key value]
train a run further:  lightning-xt fit RUN --resume [--trainer.max_steps N]"""


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    return run_trainer("fit", args)
