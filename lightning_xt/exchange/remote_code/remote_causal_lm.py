from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from lightning_xt.core.inputs import Inputs
from lightning_xt.exchange.remote_code.base import IGNORED, RemoteModel, compute_loss, make_output, require_ids
from lightning_xt.exchange.remote_code.padding import move_padding


class RemoteCausalLM(RemoteModel):
    """Language model of this package for `AutoModelForCausalLM`."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Compute logits, and the loss of labels.

        Args:
            input_ids: ids (b, n).
            attention_mask: 1 for real tokens, of these and those of the cache; padding may stand anywhere.
            labels: ids whose next token is predicted; -100 and padding do not count.
            use_cache: True to return a cache for the next tokens.
            logits_to_keep: number of last places to return, or their indices. 0 = all.
            num_items_in_batch: divisor of the summed loss. None = the number of labels.
            token_type_ids: of tokenizers, without effect.
            options: `cache`, or `past_key_values` as it was called, and `return_dict`.
        """
        cache = self._open_cache(options, use_cache)
        given = move_padding(require_ids("input_ids", input_ids), attention_mask, "attention_mask")
        inputs = None
        if self.visible_prompts and cache is not None and not cache.columns:
            whole = torch.full((len(given.tokens),), given.tokens.shape[1], device=given.tokens.device)
            inputs = Inputs(visible_prefix=whole if given.lengths is None else given.lengths)
        logits = self._decode(given, inputs, cache, 0 if labels is not None else logits_to_keep)
        loss = None
        if labels is not None:
            targets = labels[:, 1:]
            if attention_mask is not None:
                # A real token counts if there is one before it, also if padding stands between them.
                real = attention_mask[:, -labels.shape[1] :].to(labels.device) != 0
                targets = targets.masked_fill(~(real[:, 1:] & (real.cumsum(dim=1)[:, :-1] > 0)), IGNORED)
            loss = compute_loss(logits[:, :-1], targets, num_items_in_batch)
        return make_output(CausalLMOutputWithPast, options, cache, loss=loss, logits=logits)
