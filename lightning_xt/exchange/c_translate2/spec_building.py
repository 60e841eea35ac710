"""Specification of CTranslate2 from an encoder-decoder that fits its template."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.where import Where
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.embeddings.embedding_norm import EmbeddingNorm
from lightning_xt.nn.embeddings.embedding_scale import EmbeddingScale
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.norms.rms_norm import RMSNorm

UNUSED_LOGIT = -1e4
"""Logit of tokens that no text has, which half precision holds too."""


@torch.no_grad()
def build_spec(network: EncoderDecoder, settings: Mapping[str, Any], positions: int, unused: Sequence[int]) -> Any:
    """Build the specification of a model, without its vocabularies.

    Args:
        network: the model.
        settings: its settings by the template.
        positions: length of the tables of positions that are computed.
        unused: target tokens that are never generated.
    """
    from ctranslate2.specs import TransformerSpec
    from ctranslate2.specs.transformer_spec import TransformerDecoderSpec, TransformerEncoderSpec

    sides = []
    for side, kind, part in (
        ("encoder", TransformerEncoderSpec, network.encoder),
        ("decoder", TransformerDecoderSpec, network.decoder),
    ):
        spec = kind(settings[f"{side}_depth"], settings[f"{side}_heads"], **_list_options(side, settings))
        tables = spec.embeddings if side == "decoder" else spec.embeddings[0]
        tables.weight = part.token_embedding.weight.detach()
        _set_embeddings(spec, part.embeddings, settings, side, positions)
        for layer, layer_spec in enumerate(spec.layer):
            _set_layer(layer_spec, part.stack.sublayers, layer, settings, side)
        if part.stack.output_norm is not None:
            _set_norm(spec.layer_norm, part.stack.output_norm)
        sides.append(spec)
    _set_head(sides[1], network.decoder.head, unused)
    made = TransformerSpec(*sides)
    made.config.layer_norm_epsilon = settings["eps"]
    return made


def _list_options(side: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """List the options of a side's specification."""
    from ctranslate2.specs.common_spec import Activation

    known = {
        "relu": Activation.RELU,
        "gelu": Activation.GELU,
        "gelu_tanh": Activation.GELUTanh,
        "silu": Activation.SWISH,
    }
    kind, activation = settings[f"{side}_feedforward"].split()[:2]
    position = settings[f"{side}_position"]
    options = {
        "pre_norm": settings[f"{side}_placement"] == "pre",
        "activation": known[activation],
        "layernorm_embedding": "norm" in settings[f"{side}_embeddings"].split(),
        "relative_attention_bias": position in ("bias", "shared_bias"),
        "ffn_glu": kind == "gated",
        "rms_norm": not settings[f"{side}_norm"].startswith("layer"),
        "head_dim": settings[f"{side}_self_dim_head"],
    }
    if settings[f"{side}_kv_heads"] != settings[f"{side}_heads"]:
        options["num_heads_kv"] = settings[f"{side}_kv_heads"]
    if position == "rotary":
        base = settings[f"{side}_rotary_base"]
        options |= {"rotary_dim": settings[f"{side}_self_dim_head"], "rotary_interleave": False, "rotary_base": base}
    return options


def _set_embeddings(
    spec: Any, embeddings: nn.ModuleList, settings: Mapping[str, Any], side: str, positions: int
) -> None:
    spec.scale_embeddings = False
    added: list[nn.Module] = []
    for each in embeddings:
        if isinstance(each, EmbeddingScale):
            spec.scale_embeddings = float(each.factor)
        elif isinstance(each, EmbeddingNorm):
            _set_norm(spec.layernorm_embedding, each.norm)
        else:
            added.append(each)
    if hasattr(spec, "position_encodings"):
        # Without a table, CTranslate2 adds sines.
        count = settings.get(f"{side}_positions", positions)
        spec.position_encodings.encodings = compute_table(added, count, settings["dim"])


def compute_table(added: Sequence[nn.Module], positions: int, dim: int) -> Float[Tensor, "n D"]:
    """Return what embeddings of positions add to each token."""
    x, inputs = torch.zeros(1, positions, dim), Inputs()
    where = Where.from_sequence(positions, causal=True, inputs=inputs, lengths=None, device=x.device)
    for each in added:
        x = each(x, where, inputs)
    return x[0]


def _set_layer(spec: Any, sublayers: nn.ModuleDict, layer: int, settings: Mapping[str, Any], side: str) -> None:
    own: Any = sublayers[f"{layer}_attention"]
    _set_attention(spec.self_attention, own, settings[f"{side}_self_scale"])
    if settings[f"{side}_position"] in ("bias", "shared_bias"):
        # The first layer may have the table of all.
        first: Any = sublayers["0_attention"]
        position = own.branch.position if own.branch.position.table is not None else first.branch.position
        spec.self_attention.relative_attention_bias = position.table.detach()
        spec.self_attention.relative_attention_max_distance = np.int32(position.max_distance)
    if side == "decoder":
        _set_attention(spec.attention, sublayers[f"{layer}_cross_attention"], settings["decoder_cross_scale"])
        spec.attention.head_dim = np.int32(settings["decoder_cross_dim_head"])
    _set_feedforward(spec.ffn, sublayers[f"{layer}_feedforward"])


def _set_attention(spec: Any, sublayer: Any, scale: float) -> None:
    branch = sublayer.branch
    spec.queries_scale = float(scale)
    maps = ("to_qkv",) if hasattr(branch.projection, "to_qkv") else ("to_q", "to_kv")
    for target, name in zip(spec.linear, maps, strict=False):
        _set_linear(target, getattr(branch.projection, name))
    _set_linear(spec.linear[-1], branch.to_out if branch.output_projection is None else branch.output_projection.to_out)
    _set_norm(spec.layer_norm, _find_norm(sublayer))


def _set_feedforward(spec: Any, sublayer: Any) -> None:
    feedforward = sublayer.branch.feedforward
    if hasattr(spec, "linear_0_noact"):
        _set_linear(spec.linear_0, feedforward.to_hidden, half=0)
        _set_linear(spec.linear_0_noact, feedforward.to_hidden, half=1)
    else:
        _set_linear(spec.linear_0, feedforward.to_hidden)
    _set_linear(spec.linear_1, feedforward.to_out)
    _set_norm(spec.layer_norm, _find_norm(sublayer))


def _find_norm(sublayer: Any) -> nn.Module:
    """Return the norm before a sublayer, or that after it."""
    placement = sublayer.placement
    norm: nn.Module = placement.norm_stream if placement.norm_before is None else placement.norm_before
    return norm


def _set_linear(spec: Any, linear: Any, half: int | None = None) -> None:
    """Set a map, or one of the two that it holds."""
    for name, tensor in (("weight", linear.weight), ("bias", linear.bias)):
        if tensor is not None:
            setattr(spec, name, tensor.detach() if half is None else tensor.detach().chunk(2)[half].contiguous())


def _set_norm(spec: Any, norm: nn.Module) -> None:
    """Set the gain of a norm; CTranslate2 takes one with a shift for LayerNorm."""
    if isinstance(norm, RMSNorm):
        spec.gamma = (1 + norm.gain if norm.zero_centered else norm.gain).detach()
    elif isinstance(norm, LayerNorm):
        spec.gamma = norm.gain.detach()
        spec.beta = torch.zeros_like(norm.gain) if norm.bias is None else norm.bias.detach()


def _set_head(spec: Any, head: Any, unused: Sequence[int]) -> None:
    """Set the map to logits, with a bias that keeps unused tokens from being generated, as here."""
    tied = not hasattr(head, "to_logits")
    weight, bias = (head.weight, head.bias) if tied else (head.to_logits.weight, head.to_logits.bias)
    if tied and head.scale != 1:
        spec.scale_outputs = float(head.scale)
    spec.projection.weight = weight.detach()
    shift = torch.zeros(len(weight)) if bias is None else bias.detach().clone()
    shift[list(unused)] = UNUSED_LOGIT
    spec.projection.bias = shift
