"""Sizes that a model hands to its parts, and the one legend of tensor axes.

b  rows of the batch                D  width of the residual stream
n  tokens of a forward              d  width of one head's queries and keys
i  queries                          e  width of one head's values
j  keys                             h  query heads
m  tokens of the context            g  key/value heads (h / g queries share one)
s  streams of a hyper-connection    c  width of the context
v  tokens of the vocabulary         p  soft-prefix vectors
t  tokens of whole or new texts     f  hidden features of a feedforward
k  chosen rows, or candidates

A word names a further axis, such as `requests`, `beams`, `heads` or `slots`; `_` is any size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol, runtime_checkable

from torch import nn

from lightning_xt.system.option_checks import check_option

Kind = Literal["attention", "cross_attention", "feedforward"]
"""Kind of a sublayer."""


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """Sizes that a stack hands to every part it builds.

    Args:
        dim: width of the part's vectors (the residual stream's, unless a parent replaced it).
        layer: index of the layer, from 0.
        depth: number of layers of the stack.
        causal: True if a token sees only itself and earlier tokens.
        context_dim: width of the context of cross-attention; None in every other part.
        calls: number of times that a forward calls each layer.
        kind: kind of the sublayer that the part belongs to.
        earlier_values: True if a layer before gives its values to later ones. None = every layer but the first does.
        vocab_size: number of different tokens, for tables by token.
        owners: the layer that owns a parameter of all layers, by name; one dict for all parts of a stack.
    """

    dim: int
    layer: int = 0
    depth: int = 1
    causal: bool = True
    context_dim: int | None = None
    calls: int = 1
    kind: Kind = "attention"
    earlier_values: bool | None = None
    vocab_size: int = 0
    owners: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def owns(self, name: str) -> bool:
        """Return True in the first layer that asks by this name, whose parameter the other layers read."""
        return self.owners.setdefault(name, self.layer) == self.layer

    @property
    def token_axis(self) -> int:
        """Axis of the tokens in the vectors that a part with these sizes gets."""
        return 1


@dataclass(frozen=True, kw_only=True)
class AttentionShape(LayerShape):
    """Sizes that an attention layer hands to every part it builds.

    Args:
        heads: number of query heads.
        kv_heads: number of key/value heads.
        dim_head: width of one head of queries and keys.
        value_dim: width of one head of values; dim_head if it is 0.
    """

    heads: int
    kv_heads: int
    dim_head: int
    value_dim: int = 0

    @property
    def token_axis(self) -> int:
        return 2

    def resize_tokens(self, dim: int) -> LayerShape:
        """Return the sizes for a part that gets whole tokens, without an axis of heads, of this width."""
        sizes = {each.name: getattr(self, each.name) for each in fields(LayerShape)}
        return LayerShape(**{**sizes, "dim": dim})

    def __post_init__(self) -> None:
        if self.value_dim == 0:
            object.__setattr__(self, "value_dim", self.dim_head)
        for name in ("heads", "kv_heads", "dim_head"):
            check_option("attention", name, getattr(self, name), least=1)
        if self.heads % self.kv_heads:
            raise ValueError(
                f"attention: heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads}); "
                f"try kv_heads {_find_divisor(self)}"
            )


@runtime_checkable
class HasEnds(Protocol):
    """Model that begins with a table of token vectors and ends with a head."""

    @property
    def token_embedding(self) -> nn.Embedding: ...

    @property
    def head(self) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class ObjectiveShape:
    """Vocabulary and ends of a model, which it hands to its objective.

    Args:
        vocab_size: number of different tokens that a text has.
        token_embedding: the model's table of token vectors.
        head: the model's map from hidden states to logits.
        mask: id that stands for a hidden token. None = there is none.
        special: ids that stand for no part of a text, such as padding and separators.
    """

    vocab_size: int
    token_embedding: nn.Embedding
    head: nn.Module
    mask: int | None = None
    special: tuple[int, ...] = ()

    @classmethod
    def from_model(
        cls, model: HasEnds, vocab: Mapping[str, int | None], *, mask: int | None = None
    ) -> "ObjectiveShape":
        """Build the shape of a model with a vocabulary: sizes and ids by target, pad, start, end and separator."""
        ids = (vocab.get(name) for name in ("pad", "start", "end", "separator"))
        special = tuple(sorted({token for token in ids if token is not None}))
        return cls(
            vocab_size=vocab.get("target") or model.token_embedding.num_embeddings,
            token_embedding=model.token_embedding,
            head=model.head,
            mask=mask,
            special=special,
        )

    @property
    def dim(self) -> int:
        """Width of the hidden states from which the head makes logits."""
        return self.token_embedding.embedding_dim


def _find_divisor(shape: AttentionShape) -> int:
    """Find the largest number of key/value heads up to the given one that divides the heads."""
    return max(g for g in range(1, min(shape.kv_heads, shape.heads) + 1) if shape.heads % g == 0)
