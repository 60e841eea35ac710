"""predict: complete the prompts of a file, or translate its lines."""

from collections.abc import Sequence
from typing import Any

SUMMARY = """complete the prompts of a file, or translate its lines, on any number of devices:
lightning-xt predict -c runs/NAME/N/config.yaml --ckpt_path best --data.predict_prompts FILE --output out.jsonl
lightning-xt predict -c runs/NAME/N/config.yaml --ckpt_path best --data.predict_source FILE --output out.de"""


def add_options(parser: Any) -> None:
    """Declare the options of the command."""
    from lightning_xt.commands.trainer.trainer_options import add_trainer_options

    add_trainer_options(parser)


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.commands.trainer.run_trainer import run_trainer

    return run_trainer("predict", args, add_options)
