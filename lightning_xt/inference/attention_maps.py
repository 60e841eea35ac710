"""Attention weights of a network on given tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import AttentionMap, Trace
from lightning_xt.inference.forward import Network, run_network
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.models.stack import Stack
from lightning_xt.nn.attention.base import find_recurrences

Part = Literal["decoder", "cross", "encoder"]


class LayerWeights(NamedTuple):
    """Weights of one call of attention.

    Args:
        layer: index of the layer.
        weights: weight of each key for each query; 0 for hidden pairs.
        persistent: number of keys that are not tokens, such as learned ones; they come first.
    """

    layer: int
    weights: Float[Tensor, "b h i j"]
    persistent: int


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of one forward, call by call. A layer that runs several times has several.

    Args:
        decoder: self-attention of the decoder. A decoder that reads segments has the calls of each in turn.
        cross: attention of the decoder to the source, the alignment of a translation.
        encoder: self-attention of the encoder.
        missing: sublayers without weights, such as `decoder 1_attention: Mamba2`; recurrences have none.
    """

    decoder: tuple[LayerWeights, ...] = ()
    cross: tuple[LayerWeights, ...] = ()
    encoder: tuple[LayerWeights, ...] = ()
    missing: tuple[str, ...] = ()

    def stack(self, part: Part) -> Float[Tensor, "layers b h i j"]:
        """Stack the weights of one part; ValueError if it has none, or its calls differ in heads or keys."""
        found: tuple[LayerWeights, ...] = getattr(self, part)
        shapes = {tuple(each.weights.shape) for each in found}
        if len(shapes) != 1:
            sizes = " and ".join(map(str, sorted(shapes))) or "no attention"
            raise ValueError(f"the {part} has {sizes}, which cannot be stacked; read the calls one by one")
        return torch.stack([each.weights for each in found])


@torch.no_grad()
def compute_attention_maps(
    network: Network,
    tokens: Int[Tensor, "b n"],
    *,
    source: Int[Tensor, "b m"] | None = None,
    source_mask: Bool[Tensor, "b m"] | None = None,
    inputs: Inputs | None = None,
) -> AttentionMaps:
    """Compute the attention weights of one forward in evaluation mode, by plain products in each attention.

    The weights are those after the normalizer and the score mods. With Differential, each head of a pair has its own.
    Memory grows with the square of the length.

    Args:
        network: a decoder, an encoder or an encoder-decoder; `model.network` of a trained model.
        tokens: ids; the target of an encoder-decoder, its start token first.
        source: source ids of an encoder-decoder. None = none.
        source_mask: True for source ids that are not padding. None = all.
        inputs: inputs of the network besides ids. None = none.

    Examples:
        >>> import torch
        >>> from lightning_xt import Decoder, compute_attention_maps
        >>> maps = compute_attention_maps(Decoder(256, dim=64, depth=2), torch.zeros(1, 7, dtype=torch.long))
        >>> maps.stack("decoder").shape
        torch.Size([2, 1, 8, 7, 7])
        >>> maps.decoder[1].weights.sum(dim=-1).allclose(torch.ones(1, 8, 7))
        True
    """
    made: Trace = run_network(network, tokens, source, source_mask, inputs, Trace(keeps_maps=True))[1]
    source_maps = () if made.source is None else made.source.maps
    decoded, encoded = (made.maps, source_maps) if isinstance(network, Decoder | EncoderDecoder) else ((), made.maps)
    return AttentionMaps(
        decoder=_collect(decoded, "attention"),
        cross=_collect(decoded, "cross_attention"),
        encoder=_collect(encoded, "attention"),
        missing=tuple(_list_missing(network)),
    )


def _collect(maps: Sequence[AttentionMap], kind: str) -> tuple[LayerWeights, ...]:
    """Collect the weights of one kind of attention."""
    return tuple(LayerWeights(each.layer, each.weights, each.persistent) for each in maps if each.kind == kind)


def _list_missing(network: torch.nn.Module) -> Iterator[str]:
    """List the sublayers with mixers that have no weights."""
    for name, part in network.named_modules():
        if isinstance(part, Stack):
            # `decoder.stack`, or `stack` of a decoder alone.
            owner = name.rpartition(".")[0] or type(network).__name__.lower()
            for step, sublayer in part.sublayers.items():
                for kind in find_recurrences(sublayer):
                    yield f"{owner} {step}: {kind}"
