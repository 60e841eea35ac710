"""Losses of the tokens of a sequence, one by one."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.inference.forward import run_network
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder


@torch.no_grad()
def compute_token_losses(
    network: Decoder | EncoderDecoder,
    tokens: Int[Tensor, "b n+1"],
    *,
    source: Int[Tensor, "b m"] | None = None,
    source_mask: Bool[Tensor, "b m"] | None = None,
    inputs: Inputs | None = None,
) -> Float[Tensor, "b n"]:
    """Compute the loss of each token but the first, in nats, in evaluation mode.

    Args:
        network: a decoder or an encoder-decoder; `model.network` of a trained model.
        tokens: ids; the target of an encoder-decoder, its start token first.
        source: source ids of an encoder-decoder. None = none.
        source_mask: True for source ids that are not padding. None = all.
        inputs: inputs of the network besides ids, for the first n tokens. None = none.

    Examples:
        >>> import torch
        >>> from lightning_xt import Decoder, compute_token_losses
        >>> compute_token_losses(Decoder(256, dim=64, depth=2), torch.zeros(1, 7, dtype=torch.long)).shape
        torch.Size([1, 6])
    """
    read, targets = tokens[:, :-1], tokens[:, 1:]
    logits = run_network(network, read, source, source_mask, inputs)
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses: Tensor = -precise.log_softmax(dim=-1).gather(-1, targets[..., None])[..., 0]
    return losses
