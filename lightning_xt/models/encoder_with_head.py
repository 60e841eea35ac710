"""Encoder with a head: a masked language model."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderFactory
from lightning_xt.nn.heads.base import HeadFactory
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.initialization import initialize
from lightning_xt.system.option_checks import check_slots


class EncoderWithHead(nn.Module):
    """Masked language model: scores the token at each place from all tokens before and after it.

    Devlin et al., 2018 (BERT). https://arxiv.org/abs/1810.04805
    The mask token is one more id, `mask_token`, which is read but never predicted.

    Args:
        vocab_size: number of different tokens, without the mask token.
        encoder: factory of the encoder.
        head: factory of the map from hidden states to logits.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from lightning_xt import Encoder, EncoderWithHead
        >>> model = EncoderWithHead(256, encoder=partial(Encoder, dim=64, depth=2))
        >>> model(torch.full((2, 10), model.mask_token)).shape
        torch.Size([2, 10, 256])
    """

    @check_slots
    def __init__(self, vocab_size: int, *, encoder: EncoderFactory = Encoder, head: HeadFactory = TiedHead) -> None:
        super().__init__()
        self.mask_token = vocab_size
        self.encoder = encoder(vocab_size + 1)
        self.head = head(self.encoder.token_embedding)
        initialize(self.head, calls=1)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        places: Int[Tensor, "b k"] | None = None,
        inputs: Inputs | None = None,
        trace: Trace | None = None,
    ) -> Any:
        """Compute the logits of the tokens at some places, (b, k, v).

        Args:
            tokens: ids, the mask token's included.
            places: index in its row of each token to score. None = all tokens, in order.
            inputs: inputs besides the tokens; padding is given as `hidden_tokens`.
            trace: empty trace that says what to keep; the filled one is then returned after the logits.
        """
        states, made = self.encoder(tokens, inputs=inputs, trace=Trace() if trace is None else trace)
        if places is not None:
            states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        states = self.encoder.token_embedding.map_back(states)
        logits: Float[Tensor, "b k v"] = self.head(states)[..., : self.mask_token]
        return logits if trace is None else (logits, made)

    @property
    def token_embedding(self) -> nn.Embedding:
        """Table of token vectors, the mask token's last."""
        return self.encoder.token_embedding

    @property
    def vocab_size(self) -> int:
        """Number of different tokens, without the mask token."""
        return self.mask_token

    @property
    def max_length(self) -> int | None:
        """Longest sequence whose positions the embeddings distinguish, in tokens. None = any."""
        return self.encoder.max_length
