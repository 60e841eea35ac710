"""predict: complete the prompts of a file, or translate its lines."""

from collections.abc import Sequence

from lightning_xt.commands.trainer.run_trainer import add_options as add_options
from lightning_xt.commands.trainer.run_trainer import run_trainer

SUMMARY = """complete the prompts of a file, or translate its lines, on any number of devices:
lightning-xt predict RUN --data.predict_prompts FILE --output out.jsonl
lightning-xt predict RUN --data.predict_source FILE --output out.de"""


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    return run_trainer("predict", args)
