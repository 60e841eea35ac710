"""Documents that are packed into one row."""

import torch
from jaxtyping import Int
from torch import Tensor


def find_documents(tokens: Int[Tensor, "b n"], separator: int) -> Int[Tensor, "b n"]:
    """Assign a document number to each token; a separator opens each document.

        tokens       a b | c d e | f          | is the separator
        documents    0 0 1 1 1 1 2 2

    The end of a document is therefore predicted from within it, and its first token from the separator alone.
    """
    return (tokens == separator).cumsum(dim=1)


def find_document_starts(documents: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Find the index at which each token's document begins."""
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return torch.where(begins, index, 0).cummax(dim=1).values


def number_documents(documents: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Assign new numbers in order, so that a number that returns within a row means another document."""
    begins = documents[:, 1:] != documents[:, :-1]
    return torch.cat((torch.zeros_like(documents[:, :1]), begins.cumsum(dim=1)), dim=1)
