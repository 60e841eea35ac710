"""Tensors of decoders in the manner of Llama, by the names that several models of `transformers` share."""

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_xt.exchange.tensor_rules import RepeatedTensor, Rule, TensorRule


def list_gated_decoder_rules(
    settings: Mapping[str, Any], norms: Mapping[str, str], attention: str = "attention.branch", head: str = "head"
) -> Iterator[Rule]:
    """Yield the rules of a decoder of `num_hidden_layers` layers with a gated feedforward.

    Args:
        settings: `attention_bias` and `mlp_bias` (False where absent), `tie_word_embeddings` and the depth.
        norms: names of a layer's norms in the other library by those of a sublayer here, such as
            `attention.placement.norm_before`.
        attention: path of the attention in a layer here.
        head: path of the head here.
    """
    yield TensorRule("token_embedding.weight", ("model.embed_tokens.weight",))
    for layer in range(settings["num_hidden_layers"]):
        ours, theirs = f"stack.sublayers.{layer}_", f"model.layers.{layer}."
        yield from _list_attention_rules(f"{ours}{attention}.", theirs, bool(settings.get("attention_bias")))
        mlp, branch = f"{theirs}mlp.", f"{ours}feedforward.branch.feedforward."
        for kind in ("weight", "bias") if settings.get("mlp_bias") else ("weight",):
            yield TensorRule(f"{branch}to_hidden.{kind}", (f"{mlp}gate_proj.{kind}", f"{mlp}up_proj.{kind}"))
            yield TensorRule(f"{branch}to_out.{kind}", (f"{mlp}down_proj.{kind}",))
        for own, name in norms.items():
            yield TensorRule(f"{ours}{own}.gain", (f"{theirs}{name}.weight",))
    yield TensorRule("stack.output_norm.gain", ("model.norm.weight",))
    if settings["tie_word_embeddings"]:
        yield RepeatedTensor("lm_head.weight", "model.embed_tokens.weight")
    else:
        yield TensorRule(f"{head}.to_logits.weight", ("lm_head.weight",))


def _list_attention_rules(branch: str, theirs: str, bias: bool) -> Iterator[Rule]:
    own = f"{theirs}self_attn."
    # An output map with a bias is another part.
    out = f"{branch}output_projection.to_out" if bias else f"{branch}to_out"
    for kind in ("weight", "bias") if bias else ("weight",):
        stacked = tuple(f"{own}{name}_proj.{kind}" for name in "qkv")
        yield TensorRule(f"{branch}projection.to_qkv.{kind}", stacked)
        yield TensorRule(f"{out}.{kind}", (f"{own}o_proj.{kind}",))
