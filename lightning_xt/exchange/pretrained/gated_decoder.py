"""Decoders in the manner of Llama: the options and the names of tensors that several models share."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from lightning_xt.exchange.pretrained.base import PretrainedShape
from lightning_xt.exchange.pretrained.rope import read_rope, rotary_template, write_rope
from lightning_xt.exchange.templates import Choice, Setting, part
from lightning_xt.exchange.tensor_rules import RepeatedTensor, Rule, TensorRule


class GatedDecoder(PretrainedShape):
    """Decoder in the manner of Llama: rotary positions, SwiGLU, RMSNorm before each sublayer."""

    attention_options: ClassVar[Mapping[str, Any]] = {}
    """Templates of further options of the attention."""
    feedforward_options: ClassVar[Mapping[str, Any]] = {}
    """Templates of further options of the feedforward."""

    @property
    @abstractmethod
    def norms(self) -> Mapping[str, str]:
        """Names of a layer's norms there, by those of a sublayer here."""

    @property
    def template(self) -> dict[str, Any]:
        hidden = Setting("intermediate_size", lambda known: 8 * -(-known["hidden_size"] // 3))
        decoder = part(
            "Decoder",
            dim=Setting("hidden_size"),
            depth=Setting("num_hidden_layers"),
            attention=attention_template(**self.attention_options),
            feedforward=part("SwiGLU", hidden_dim=hidden, **self.feedforward_options),
            norm=part("RMSNorm", eps=Setting("rms_norm_eps")),
            head=Choice("tie_word_embeddings", {False: part("UntiedHead"), True: part("TiedHead")}),
        )
        return {"decoder": decoder}

    def list_rules(self, settings: Mapping[str, Any]) -> list[Rule]:
        return list(list_gated_decoder_rules(settings, self.norms))

    def write_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return super().write_config(write_rope(settings))

    def read_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return super().read_config(config) | read_rope(config, 10_000.0)


def attention_template(**more: Any) -> dict[str, Any]:
    """Return the template of an attention with grouped heads and rotary positions, and more options of it."""
    return part(
        "Attention",
        heads=Setting("num_attention_heads"),
        kv_heads=Setting("num_key_value_heads", lambda known: known["num_attention_heads"]),
        dim_head=Setting("head_dim", lambda known: known["hidden_size"] // known["num_attention_heads"]),
        projection=part("MultiHead", bias=Setting("attention_bias")),
        position=rotary_template(),
        output_projection=Choice("attention_bias", {False: None, True: part("BiasedOutput")}),
        **more,
    )


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
