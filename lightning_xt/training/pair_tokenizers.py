"""Checks of the tokenizers and lengths of pairs against a model."""

from lightning.pytorch import Trainer

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.training.trained_tokenizers import write_tokenizers


def prepare_fit(trainer: Trainer, network: EncoderDecoder, tokenizers: dict[str, Tokenizer]) -> None:
    """Check tokenizers and lengths of the training data, and write the tokenizers into the folder of the run."""
    if network.encoder.token_embedding is network.decoder.token_embedding:
        check_shared(*tokenizers.values())
    check_positions(trainer, network.encoder.max_length, network.decoder.max_length)
    write_tokenizers(trainer, tokenizers)


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
