from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from lightning_xt.core.inputs import Inputs
from lightning_xt.exchange.remote_code.base import IGNORED, RemoteModel, compute_loss, make_output, require_ids
from lightning_xt.exchange.remote_code.padding import move_padding


class RemoteSeq2SeqLM(RemoteModel):
    """Encoder-decoder of this package for `AutoModelForSeq2SeqLM`."""

    @property
    def _decoder(self) -> Any:
        return self.own_network.decoder

    def get_encoder(self, modality: str | None = None) -> "RemoteEncoder":
        return RemoteEncoder(self)

    def get_input_embeddings(self) -> nn.Module:
        found: nn.Module = self.own_network.encoder.token_embedding
        return found

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Compute the logits of a target, and the loss of labels.

        Args:
            input_ids: ids of the sources (b, m).
            attention_mask: 1 for real ids of the sources; padding may stand anywhere.
            decoder_input_ids: ids of the targets, the start token first. None = the labels, shifted.
            decoder_attention_mask: 1 for real ids of the targets, of these and those of the cache.
            encoder_outputs: vectors of the sources, of an earlier output.
            labels: ids of the targets without the start token; -100 does not count.
            use_cache: True to return a cache for the next tokens.
            logits_to_keep: number of last places to return, or their indices. 0 = all.
            num_items_in_batch: divisor of the summed loss. None = the number of labels.
            token_type_ids: of tokenizers, without effect.
            options: `cache`, or `past_key_values` as it was called, and `return_dict`.
        """
        if decoder_input_ids is None and labels is not None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        cache = self._open_cache(options, use_cache)
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(require_ids("input_ids", input_ids), attention_mask)
        context, inputs = encoder_outputs[0], None
        if cache is None or not cache.columns:
            mask = None
            if attention_mask is not None:
                counts = (attention_mask != 0).sum(dim=1, keepdim=True)
                mask = torch.arange(context.shape[1], device=context.device) < counts.to(context.device)
            inputs = Inputs(context=context, context_mask=mask)
        given = move_padding(
            require_ids("decoder_input_ids", decoder_input_ids), decoder_attention_mask, "decoder_attention_mask"
        )
        logits = self._decode(given, inputs, cache, 0 if labels is not None else logits_to_keep)
        loss = None if labels is None else compute_loss(logits, labels, num_items_in_batch)
        fields = {"loss": loss, "logits": logits, "encoder_last_hidden_state": context}
        return make_output(Seq2SeqLMOutput, options, cache, **fields)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return labels shifted by one, the start token first."""
        start, pad = self.config.decoder_start_token_id, self.config.pad_token_id or 0
        shifted = labels.roll(1, dims=1).masked_fill(labels.roll(1, dims=1) == IGNORED, pad)
        shifted[:, 0] = start
        return shifted


class RemoteEncoder:
    """Encoder of an encoder-decoder, as `generate` calls it."""

    main_input_name = "input_ids"

    def __init__(self, model: RemoteSeq2SeqLM) -> None:
        self._network = model.own_network

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **without_effect: Any
    ) -> BaseModelOutput:
        """Encode sources; the vectors of padding stand on the right."""
        given = move_padding(input_ids, attention_mask, "attention_mask")
        mask = None
        if given.lengths is not None:
            mask = torch.arange(given.tokens.shape[1], device=input_ids.device) < given.lengths[:, None]
        return BaseModelOutput(last_hidden_state=self._network.encode(given.tokens, mask).context)

    __call__ = forward
