"""The tokenizers that weights were trained with: their check against data, and their files in a run."""

from lightning.pytorch import Trainer

from lightning_xt.checkpoints.saved_tokenizers import name_tokenizer_file
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.system.files import replace_file
from lightning_xt.training.callbacks.run_folder import find_run_folder


def check_same(use: str, ours: Tokenizer, theirs: Tokenizer) -> None:
    """Refuse data whose ids mean something else than those that the weights were trained on, by a ValueError."""
    if difference := describe_difference(theirs, ours):
        file = name_tokenizer_file(use, ours.saved_name)
        option = "target_tokenizer" if use == "target" else "tokenizer"
        raise ValueError(
            f"the data's {use} tokenizer is not the one that the weights were trained with, but {difference}; use the "
            f"data of their run, train again, or name its {file} with --data.{option}.file"
        )


def write_tokenizers(trainer: Trainer, tokenizers: dict[str, Tokenizer]) -> None:
    """Write a `<use>_tokenizer.json` into the run's folder for each tokenizer that has learned something.

    A tokenizer whose library has another kind of file is written as one.
    """
    folder = find_run_folder(trainer)
    if folder is None or not trainer.is_global_zero:
        return
    for use, tokenizer in tokenizers.items():
        if (content := tokenizer.saved_content) is not None:
            with replace_file(folder / name_tokenizer_file(use, tokenizer.saved_name)) as file:
                file.write(content)
