"""Inputs of a forward besides the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.keys_values import KeysValues
from lightning_xt.core.memories import Memories

BOOLEAN, REAL, WHOLE = "boolean", "real numbers", "whole numbers"
"""Kinds of tensors, as messages name them."""


WHOLE_SEQUENCES = ("documents", "hidden_tokens", "mask", "bias", "positions")
"""Inputs that describe whole sequences, which cannot be decoded step by step."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Optional inputs of a forward besides the tokens. A part that needs a missing one raises an error.

    Args:
        condition: one vector a row or a token, for adaptive norms.
        context: vectors for cross-attention.
        context_mask: True for real context vectors. None = all.
        types: one type a token, for TypeEmbedding.
        prefix: soft (embedded) tokens before the first token.
        documents: one document number a token; attention stays within a document, positions restart.
        visible_prefix: number of first tokens, soft ones included, that every token of the row sees (prefix language
            models).
        hidden_tokens: True for tokens that no token sees in attention, not even they themselves, as forgetful causal
            masking draws them, nor a shift or a forget gate. None = no token.
        mask: True where the token of the second axis may be seen by that of the first, besides the other rules.
        bias: added to the scores of every self-attention, for all rows and heads or for each; queries, then keys.
        positions: position of each token, in place of its index, such as for shuffled orders. Earlier and later stay
            those of the index; documents, if given, too.
        keys_values: keys and values of another model for each self-attention layer, from the first, which every token
            sees. None in the sequence = none for this layer.
        memories: memories of the segment before, for a decoder with segments; document 0 continues its last document.
        scored: True for tokens that count in auxiliary losses of parts; an objective sets it. None = all.
        tokens: ids of the tokens; the model sets it, for tables by token.
        embedded: vectors that the first layer reads; the model sets it, for parts of later layers that read them too.

    Examples:
        >>> import torch
        >>> from lightning_xt import Decoder, Inputs
        >>> tokens = torch.zeros(1, 6, dtype=torch.long)
        >>> two_documents = Inputs(documents=torch.tensor([[0, 0, 0, 1, 1, 1]]))
        >>> Decoder(256, dim=64, depth=2)(tokens, inputs=two_documents).shape
        torch.Size([1, 6, 256])
    """

    condition: Float[Tensor, "b *n _"] | None = None
    context: Float[Tensor, "b m c"] | None = None
    context_mask: Bool[Tensor, "b m"] | None = None
    types: Int[Tensor, "b n"] | None = None
    prefix: Float[Tensor, "b p D"] | None = None
    documents: Int[Tensor, "b n"] | None = None
    visible_prefix: Int[Tensor, " b"] | None = None
    hidden_tokens: Bool[Tensor, "b n"] | None = None
    mask: Bool[Tensor, "b n n"] | None = None
    bias: Float[Tensor, "_ _ n n"] | None = None
    positions: Int[Tensor, "b n"] | None = None
    keys_values: Sequence[KeysValues | None] | None = None
    memories: Memories | None = None
    scored: Bool[Tensor, "#b n"] | None = None
    tokens: Int[Tensor, "b n"] | None = None
    embedded: Float[Tensor, "b n D"] | None = None

    @property
    def num_soft_tokens(self) -> int:
        """Number of soft tokens before the first token."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    def find_counted(self, valid: Tensor | None) -> Bool[Tensor, "#b n"] | None:
        """Find the tokens, of the `valid` ones, that count in auxiliary losses of parts. None = all."""
        if valid is None or self.scored is None:
            return self.scored if valid is None else valid
        return valid & self.scored

    def to(self, dtype: torch.dtype) -> "Inputs":
        """Cast the vectors, such as a context from an encoder of another type, to the type of a model."""
        vectors = {name: getattr(self, name) for name in ("condition", "context", "prefix", "bias")}
        cast = {name: vector.to(dtype) for name, vector in vectors.items() if vector is not None}
        return replace(self, **cast) if cast else self

    def require(self, name: str, reader: object) -> Tensor:
        """Return the named input, which `reader` needs; ValueError if it was not given."""
        value = getattr(self, name)
        if value is None and name == "tokens":
            raise ValueError(
                f"{type(reader).__name__} reads token ids, which soft tokens do not have; omit Inputs(prefix=...), or "
                "choose another part"
            )
        if value is None:
            raise ValueError(
                f"{type(reader).__name__} needs Inputs({name}=...), but this forward has no {name}; give it when you "
                "call the network from Python, or choose another part"
            )
        return value


def check_inputs(tokens: Tensor, inputs: Inputs | None) -> None:
    """Raise a ValueError for tokens, or inputs besides them, of another type or shape than their annotations say."""
    if torch.compiler.is_compiling():
        return
    if tokens.dim() != 2 or len(tokens) == 0 or _describe_kind(tokens) != WHOLE:
        raise ValueError(
            f"tokens is a {tokens.dtype} tensor of shape {tuple(tokens.shape)}; it must be whole numbers of shape "
            "(rows, tokens), with at least one row"
        )
    if inputs is None:
        return
    (rows, n), context, condition = tokens.shape, inputs.context, inputs.condition
    vectors = -1 if context is None or context.dim() != 3 else context.shape[1]
    for name, kind, shape in (
        ("condition", REAL, (rows, -1) if condition is None or condition.dim() != 3 else (rows, n, -1)),
        ("context_mask", BOOLEAN, (rows, vectors)),
        ("types", WHOLE, (rows, n)),
        ("prefix", REAL, (rows, -1, -1)),
        ("documents", WHOLE, (rows, n)),
        ("visible_prefix", WHOLE, (rows,)),
        ("hidden_tokens", BOOLEAN, (rows, n)),
        ("mask", BOOLEAN, (rows, n, n)),
        ("bias", REAL, (-1, -1, n, n)),
        ("positions", WHOLE, (rows, n)),
        ("scored", BOOLEAN, (rows, n)),
    ):
        value: Tensor | None = getattr(inputs, name)
        if value is None:
            continue
        fits = value.dim() == len(shape) and all(b in (-1, a) for a, b in zip(value.shape, shape, strict=True))
        if not fits or _describe_kind(value) != kind:
            sizes = ", ".join("any" if size == -1 else str(size) for size in shape)
            raise ValueError(
                f"Inputs({name}=...) is a {value.dtype} tensor of shape {tuple(value.shape)}; for {rows} rows of {n} "
                f"tokens it must be {kind} of shape ({sizes})"
            )


def _describe_kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return BOOLEAN
    return REAL if tensor.is_floating_point() else WHOLE


class ReadsInput:
    """Part of a network that reads inputs besides the tokens."""

    needed_input: ClassVar[str | None] = None
    """Field of `Inputs` without which the part cannot compute. None = it needs none."""
