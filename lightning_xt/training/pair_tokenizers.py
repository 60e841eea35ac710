"""Whether the tokenizers of data and weights are the same, and where a run keeps them."""

from pathlib import Path

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.system.files import replacing


def check_same(use: str, ours: Tokenizer, theirs: Tokenizer) -> None:
    """Refuses data whose ids mean something else than those that the weights were trained on.

    Args:
        use: source or target.
        ours: of the weights.
        theirs: of the data.

    Raises:
        ValueError: they differ.
    """
    same = theirs.trained_state == ours.trained_state if ours.trained_state else theirs.init_args == ours.init_args
    if type(theirs) is not type(ours) or not same:
        raise ValueError(
            f"the data's {use} tokenizer is not the one that the weights were trained with; use the data of their run, "
            "train anew or, where both sides share it, name its source_tokenizer.json with --data.tokenizer.file"
        )


def check_shared(source: Tokenizer, target: Tokenizer) -> None:
    """Refuses one table of vectors for ids that mean different things.

    Raises:
        ValueError: they do.
    """
    if source.trained_state != target.trained_state:
        raise ValueError(
            "model.shared_embedding is on, but the ids of source and target mean different things; set "
            "--data.shared_tokenizer true, or --model.shared_embedding false"
        )


def check_positions(longest: tuple[int, int], reach: tuple[int | None, int | None]) -> None:
    """Refuses pairs that are longer than the positions that the network can tell apart.

    Args:
        longest: ids of the longest source and of what is read of the longest target.
        reach: positions of encoder and decoder. None = any number.

    Raises:
        ValueError: they are.
    """
    for side, ids, most in zip(("encoder", "decoder"), longest, reach, strict=True):
        if most is not None and ids > most:
            raise ValueError(
                f"the data have texts of {ids} ids, but the {side}'s positions reach only {most} (max_length of its "
                f"embeddings); raise that, or set --data.max_length {most - 1} or less"
            )


def write_tokenizers(folder: Path, tokenizers: dict[str, Tokenizer]) -> None:
    """Writes what tokenizers have learnt, a `tokenizer.json` each."""
    for use, tokenizer in tokenizers.items():
        if tokenizer.trained_state is not None:
            with replacing(folder / f"{use}_tokenizer.json") as file:
                file.write(tokenizer.trained_state.encode("utf-8"))
