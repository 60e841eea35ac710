"""One forward of a network of any kind."""

from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.models.encoder_with_head import EncoderWithHead

Network = Decoder | Encoder | EncoderDecoder | EncoderWithHead


def run_network(
    network: Network,
    tokens: Int[Tensor, "b n"],
    source: Int[Tensor, "b m"] | None,
    source_mask: Bool[Tensor, "b m"] | None,
    inputs: Inputs | None,
    trace: Trace | None = None,
) -> Any:
    """Run a network in evaluation mode on tokens, and on a source if it has an encoder besides its decoder.

    Args:
        network: a decoder, an encoder or an encoder-decoder.
        tokens: ids; the target of an encoder-decoder.
        source: source ids of an encoder-decoder; None for another network.
        source_mask: True for source ids that are not padding. None = all.
        inputs: inputs of the network besides ids. None = none.
        trace: empty trace that says what to keep; the filled one is then returned after the result.

    Raises:
        ValueError: an encoder-decoder lacks a source, or another network is given one.
    """
    with eval_mode(network):
        if isinstance(network, EncoderDecoder):
            if source is None:
                raise ValueError("an encoder-decoder needs a source next to its target; give source=src")
            return network(source, tokens, source_mask, inputs=inputs, trace=trace)
        if source is not None or source_mask is not None:
            raise ValueError(
                f"{type(network).__name__} reads no source; omit source and source_mask, or give inputs with a context"
            )
        return network(tokens, inputs=inputs, trace=trace)
