"""Token vectors with their labels."""

from collections.abc import Sequence

from lightning.pytorch.loggers import Logger
from torch import nn

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.inference.figures.token_labels import label_vocabulary
from lightning_xt.models.token_embedding import TokenEmbedding
from lightning_xt.training.loggers.media import log_embedding

MOST = 10_000
"""Vectors of a table that are logged; a projector becomes slow beyond."""


def log_embeddings(loggers: Sequence[Logger], network: nn.Module, tokenizers: dict[str, Tokenizer], step: int) -> None:
    """Log the first vectors of each table of tokens; a table that source and target share is logged once."""
    tables = [part for part in network.modules() if isinstance(part, TokenEmbedding)]
    for table, (use, tokenizer) in zip(tables, tokenizers.items(), strict=False):
        vectors = table.weight.detach()[:MOST].float().cpu()
        labels = label_vocabulary(tokenizer, min(len(vectors), tokenizer.vocab_size))
        # Ids besides those of the tokenizer, such as the mask token.
        labels += [f"id {token}" for token in range(len(labels), len(vectors))]
        log_embedding(loggers, f"{use}_tokens", vectors, labels, step)
