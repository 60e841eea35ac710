"""What a forward pass is given beside the tokens."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Optional companions of the tokens. A part that needs one that is missing says so.

    Args:
        condition: the vector of each row that adaptive norms read.
        context: vectors that cross-attention reads.
        context_mask: which context vectors are real; True = may be looked at. None = all.
        types: a type for each token, for TypeEmbedding.
        prefix: soft (embedded) tokens that stand before the first token.
        documents: a document for each token; attention does not cross from one to another, positions restart.
        visible_prefix: number of first tokens, soft ones included, that every token of the row may look at (prefix
            language models).
        hidden: tokens that no query may look at, as forgetful causal masking draws them. None = no token. What else
            carries a token forward (a shift, a forget gate) still does.
    """

    condition: Float[Tensor, "b _"] | None = None
    context: Float[Tensor, "b m c"] | None = None
    context_mask: Bool[Tensor, "b m"] | None = None
    types: Int[Tensor, "b n"] | None = None
    prefix: Float[Tensor, "b p D"] | None = None
    documents: Int[Tensor, "b n"] | None = None
    visible_prefix: Int[Tensor, " b"] | None = None
    hidden: Bool[Tensor, "b n"] | None = None

    def to(self, dtype: torch.dtype) -> "Inputs":
        """The same with vectors of another type, such as those that an encoder of more bits has made."""
        vectors = {name: getattr(self, name) for name in ("condition", "context", "prefix")}
        cast = {name: vector.to(dtype) for name, vector in vectors.items() if vector is not None}
        return replace(self, **cast) if cast else self

    def require(self, name: str, reader: object) -> Tensor:
        """The named input.

        Raises:
            ValueError: it was not given; the message names the part that reads it.
        """
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"{type(reader).__name__} needs Inputs({name}=...), and this forward was given none")
        return value


def find_documents(tokens: Int[Tensor, "b n"], separator: int) -> Int[Tensor, "b n"]:
    """The document of each token, where a separator opens each document.

        tokens       a b | c d e | f          | is the separator
        documents    0 0 1 1 1 1 2 2

    The end of a document is therefore predicted from within it, and its first token from the separator alone.
    """
    return (tokens == separator).cumsum(dim=1)
