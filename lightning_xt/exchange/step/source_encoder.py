"""An encoder, and the keys and values that a decoder makes of its output, as a function of tensors."""

from typing import cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from lightning_xt.core.cache import Cache
from lightning_xt.core.trace import Trace
from lightning_xt.models.encoder_decoder import EncoderDecoder


class SourceEncoder(nn.Module):
    """Encoder of sources into the keys and values of each cross-attention, for other programs.

    Args:
        model: the encoder-decoder, in evaluation mode.
    """

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Int[Tensor, "b m"], source_mask: Bool[Tensor, "b m"]) -> tuple[Tensor, ...]:
        """Compute the tensors of `DecodeStep.context_names`; the mask is True for real tokens."""
        decoder = self.model.decoder
        inputs = self.model.encode(source, source_mask)
        cache = cast(Cache, decoder.new_cache(source.shape[0], 1))
        cache.begin(1)
        # The step itself is dropped from the traced program; its cross-attention leaves the keys and values.
        decoder.run_layers(torch.zeros_like(source[:, :1]), None, inputs, cache, Trace())
        contexts = [each for call in cache.collect_contexts() for each in call.values()]
        return tuple(tensor for each in contexts for tensor in (each.keys, each.values))
