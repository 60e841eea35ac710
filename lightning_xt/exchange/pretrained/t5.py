import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_xt.exchange.pretrained.activation_names import ACTIVATIONS
from lightning_xt.exchange.pretrained.base import PretrainedShape
from lightning_xt.exchange.templates import Choice, Setting, part
from lightning_xt.exchange.tensor_rules import FixedTensor, RepeatedTensor, Rule, TensorRule

HEADS = {
    "scaled": part("TiedHead", scale=None),
    "untied": part("UntiedHead"),
    "unscaled": part("TiedHead"),
}
"""Heads of the first T5, of version 1.1, and of models that transformers 5 builds from a config of version 1.1."""
OUTPUT = "lm_head.weight"


class T5(PretrainedShape):
    """T5: relative biases shared by the layers of a side, RMSNorm before each sublayer, no biases, unscaled scores.

    Raffel et al., 2019. https://arxiv.org/abs/1910.10683. Version 1.1 has a gated feedforward and another table for its
    output.
    """

    label, model_type, architecture, kind = "T5", "t5", "T5ForConditionalGeneration", "Seq2Seq"
    depth_settings, length_setting = ("num_layers", "num_decoder_layers"), "n_positions"
    defaults: ClassVar = {
        "d_kv": 64,
        "feed_forward_proj": "relu",
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
    }
    constants: ClassVar = {"is_encoder_decoder": True}

    @property
    def template(self) -> dict[str, Any]:
        position = part(
            "SharedRelativeBias",
            num_buckets=Setting("relative_attention_num_buckets"),
            max_distance=Setting("relative_attention_max_distance"),
        )
        side = {
            "dim": Setting("d_model"),
            "attention": _make_attention(position),
            "feedforward": _make_feedforward(),
            "norm": part("RMSNorm", eps=Setting("layer_norm_epsilon")),
        }
        decoder = part(
            "Decoder",
            **side,
            depth=Setting("num_decoder_layers"),
            cross_attention=_make_attention(None),
            head=Choice("head", HEADS),
        )
        encoder = part("Encoder", **side, depth=Setting("num_layers"))
        return {"encoder": encoder, "decoder": decoder, "shared_embedding": True}

    def list_rules(self, settings: Mapping[str, Any]) -> list[Rule]:
        gated = settings["feed_forward_proj"].startswith("gated-")
        rules: list[Rule] = [TensorRule("decoder.token_embedding.weight", ("shared.weight",))]
        for side, depth in (("encoder", settings["num_layers"]), ("decoder", settings["num_decoder_layers"])):
            rules.append(RepeatedTensor(f"{side}.embed_tokens.weight", "shared.weight"))
            rules.append(TensorRule(f"{side}.stack.output_norm.gain", (f"{side}.final_layer_norm.weight",)))
            table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            rules.append(TensorRule(f"{side}.stack.sublayers.0_attention.branch.position.table", (table,)))
            for layer in range(depth):
                rules += _list_layer_rules(side, layer, gated)
        rules.append(_make_unused_rule(settings))
        if settings["head"] == "untied":
            return [*rules, TensorRule("decoder.head.to_logits.weight", (OUTPUT,))]
        # Before version 5, transformers does not tie an unscaled head.
        return [*rules, RepeatedTensor(OUTPUT, "shared.weight", written=settings["head"] == "unscaled")]

    def write_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        scaled = settings["head"] == "scaled"
        others = {name: value for name, value in settings.items() if name != "head"}
        # Both versions of transformers scale hidden states if and only if it does not say that the head is untied.
        return super().write_config({**others, "tie_word_embeddings": scaled, "scale_decoder_outputs": scaled})

    def read_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        known = super().read_config(config)
        if known.get("num_decoder_layers") is None:
            known["num_decoder_layers"] = known["num_layers"]
        return known

    def complete_settings(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        scaled = settings.get("scale_decoder_outputs", settings.get("tie_word_embeddings") is not False)
        own, table = tensors.get(OUTPUT), tensors.get("shared.weight")
        if scaled or own is None or (table is not None and torch.equal(own, table)):
            return {**settings, "head": "scaled" if scaled else "unscaled"}
        return {**settings, "head": "untied"}


def _make_attention(position: dict[str, Any] | None) -> dict[str, Any]:
    return part(
        "Attention",
        heads=Setting("num_heads"),
        dim_head=Setting("d_kv", lambda known: known["d_model"] // known["num_heads"]),
        position=position,
        score=part("DotProduct", scale=1.0),
    )


def _make_feedforward() -> Choice:
    """Return the feedforwards by their names in transformers, whose gated GELU is an approximation."""
    plain = Setting("d_ff", lambda known: 4 * known["d_model"])
    gated = Setting("d_ff", lambda known: 8 * -(-known["d_model"] // 3))
    kinds = {name: part("MLP", hidden_dim=plain, activation=each) for name, each in ACTIVATIONS.items()}
    kinds["gated-gelu"] = part("GatedMLP", hidden_dim=gated, activation=ACTIVATIONS["gelu_new"])
    kinds["gated-silu"] = part("SwiGLU", hidden_dim=gated)
    kinds["gated-relu"] = part("ReGLU", hidden_dim=gated)
    return Choice("feed_forward_proj", kinds)


def _make_unused_rule(settings: Mapping[str, Any]) -> Rule:
    """Return the rule of a table that older folders have, and that transformers does not load either."""
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    shape = settings["relative_attention_num_buckets"], settings["num_heads"]
    return FixedTensor(name, torch.zeros(()).expand(shape), math.inf, written=False)


def _list_layer_rules(side: str, layer: int, gated: bool) -> Iterator[Rule]:
    ours, theirs = f"{side}.stack.sublayers.{layer}_", f"{side}.block.{layer}.layer."
    kinds = {"attention": "SelfAttention", "cross_attention": "EncDecAttention", "feedforward": "DenseReluDense"}
    if side == "encoder":
        kinds.pop("cross_attention")
    for number, (kind, name) in enumerate(kinds.items()):
        own, branch = f"{theirs}{number}.{name}.", f"{ours}{kind}.branch."
        yield TensorRule(f"{ours}{kind}.placement.norm_before.gain", (f"{theirs}{number}.layer_norm.weight",))
        if kind == "feedforward":
            hidden = (f"{own}wi_0.weight", f"{own}wi_1.weight") if gated else (f"{own}wi.weight",)
            yield TensorRule(f"{branch}feedforward.to_hidden.weight", hidden)
            yield TensorRule(f"{branch}feedforward.to_out.weight", (f"{own}wo.weight",))
            continue
        if kind == "attention":
            stacked = (f"{own}q.weight", f"{own}k.weight", f"{own}v.weight")
            yield TensorRule(f"{branch}projection.to_qkv.weight", stacked)
        else:
            yield TensorRule(f"{branch}projection.to_q.weight", (f"{own}q.weight",))
            yield TensorRule(f"{branch}projection.to_kv.weight", (f"{own}k.weight", f"{own}v.weight"))
        yield TensorRule(f"{branch}to_out.weight", (f"{own}o.weight",))
