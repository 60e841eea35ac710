"""Checks of tokenizers and lengths against a model, and the tokenizer files of a run."""

from pathlib import Path

from lightning.pytorch import Trainer

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.system.files import replace_file


def check_same(use: str, ours: Tokenizer, theirs: Tokenizer) -> None:
    """Refuse data whose ids mean something else than those that the weights were trained on, by a ValueError."""
    if difference := describe_difference(theirs, ours):
        raise ValueError(
            f"the data's {use} tokenizer is not the one that the weights were trained with, but {difference}; use the "
            "data of their run, train again or, if both sides share it, name its source_tokenizer.json with "
            "--data.tokenizer.file"
        )


def check_shared(source: Tokenizer, target: Tokenizer) -> None:
    """Refuse one table of vectors for ids that mean different things, by a ValueError."""
    if source.trained_state != target.trained_state:
        raise ValueError(
            "model.shared_embedding is on, but the ids of source and target mean different things: the source has "
            f"{describe_difference(source, target)}; set --data.shared_tokenizer true, or --model.shared_embedding "
            "false"
        )


def check_positions(trainer: Trainer, encoder: int | None, decoder: int | None) -> None:
    """Refuse training data with pairs beyond the positions (None = any) of encoder or decoder by a ValueError.

    Nothing is checked if the data module does not know its longest pair.
    """
    longest = getattr(getattr(trainer, "datamodule", None), "longest", None) or (0, 0)
    for side, ids, most in zip(("encoder", "decoder"), longest, (encoder, decoder), strict=True):
        if most is not None and ids > most:
            raise ValueError(
                f"the data have texts of {ids} ids, but the {side}'s positions reach only {most} (max_length of its "
                f"embeddings); raise that, or set --data.max_length {most - 1} or less"
            )


def write_tokenizers(folder: Path, tokenizers: dict[str, Tokenizer]) -> None:
    """Write a `<use>_tokenizer.json`, or another file of its library, for each tokenizer that has learnt something."""
    for use, tokenizer in tokenizers.items():
        if (content := tokenizer.saved_content) is not None:
            with replace_file(folder / f"{use}_{tokenizer.saved_name}") as file:
                file.write(content)
