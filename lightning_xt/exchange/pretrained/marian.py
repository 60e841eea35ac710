from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.exchange.pretrained.activation_names import ACTIVATIONS, check_activation
from lightning_xt.exchange.pretrained.base import PretrainedShape, UnsupportedSettingError
from lightning_xt.exchange.templates import Choice, Match, Mismatch, Setting, part
from lightning_xt.exchange.tensor_rules import FixedTensor, RepeatedTensor, Rule, TensorRule

LEAST_POSITIONS = 1024
"""Least positions of the tables of sines, which are computed for any length."""
SINES_TOLERANCE = 1e-4
"""Largest rounding of a table of sines, whose angles older files computed in float32."""
BIAS = "final_logits_bias"
TABLES = tuple(f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder"))
"""Tables of sines, which a folder may lack."""


class Marian(PretrainedShape):
    """Marian: the first transformer with biases everywhere, sines of positions and norms after each sublayer.

    Junczys-Dowmunt et al., 2018. https://arxiv.org/abs/1804.00344
    """

    label, model_type, architecture, kind = "Marian", "marian", "MarianMTModel", "Seq2Seq"
    overlay: ClassVar = "architectures/marian.yaml"
    depth_settings = ("encoder_layers", "decoder_layers")
    defaults: ClassVar = {
        "activation_function": "gelu",
        "scale_embedding": False,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "max_position_embeddings": 1024,
    }
    constants: ClassVar = {"is_encoder_decoder": True}

    @property
    def template(self) -> dict[str, Any]:
        sines = part("SinusoidalPositions", learned_scale=False)
        sides = {
            side: {
                "dim": Setting("d_model"),
                "depth": Setting(f"{side}_layers"),
                "attention": _make_attention(side),
                "feedforward": part(
                    "MLP",
                    hidden_dim=Setting(f"{side}_ffn_dim", lambda known: 4 * known["d_model"]),
                    activation=Choice("activation_function", ACTIVATIONS),
                    bias=True,
                ),
                "norm": part("LayerNorm", eps=1e-5, bias=True),
                "placement": part("PostNorm"),
                "embeddings": Choice("scale_embedding", {True: [part("EmbeddingScale"), sines], False: [sines]}),
            }
            for side in ("encoder", "decoder")
        }
        bias = Setting("logits_bias")
        heads = {True: part("TiedHead", bias=bias), False: part("UntiedHead", bias=bias)}
        decoder = part(
            "Decoder",
            **sides["decoder"],
            cross_attention=_make_attention("decoder"),
            head=Choice("tie_word_embeddings", heads),
        )
        return {
            "encoder": part("Encoder", **sides["encoder"]),
            "decoder": decoder,
            "shared_embedding": Setting("share_encoder_decoder_embeddings"),
        }

    def match(self, config: Mapping[str, Any]) -> Match:
        found = super().match(config)
        shared, tied = (
            found.settings.get(name) for name in ("share_encoder_decoder_embeddings", "tie_word_embeddings")
        )
        if shared and tied is False:
            found.mismatches.append(Mismatch("model.decoder.head", "UntiedHead", "TiedHead (with a shared_embedding)"))
        return found

    def list_rules(self, settings: Mapping[str, Any]) -> list[Rule]:
        rules: list[Rule] = [*_list_table_rules(settings), _make_bias_rule(settings)]
        for side in ("encoder", "decoder"):
            for layer in range(settings[f"{side}_layers"]):
                rules += _list_layer_rules(side, layer)
        if (shape := settings.get("table_shape")) is not None:
            sines = compute_sines(*shape)
            rules += [FixedTensor(name, sines, SINES_TOLERANCE, written=False) for name in TABLES]
        return rules

    def choose_length(self, longest: int) -> int:
        # The longest translation of the longest source, see make_generation_config.
        return max(2 * longest + 33, LEAST_POSITIONS)

    def write_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in settings.items() if name != "logits_bias"}
        # The default of the class is the id 0.
        return super().write_config({**others, "forced_eos_token_id": None})

    def read_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        known = super().read_config(config)
        check_activation(known, "activation_function")
        if (size := known.get("decoder_vocab_size")) not in (None, known.get("vocab_size")):
            raise UnsupportedSettingError(
                f"decoder_vocab_size is {size} and vocab_size {known.get('vocab_size')}, but only models with one "
                "vocabulary for source and target have a counterpart here"
            )
        if known["share_encoder_decoder_embeddings"] and not known["tie_word_embeddings"]:
            raise UnsupportedSettingError(
                "tie_word_embeddings is False although share_encoder_decoder_embeddings is True, but only a tied head "
                "has a counterpart here"
            )
        return known

    def complete_settings(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        bias, longest = tensors.get(BIAS), settings["max_position_embeddings"]
        known = {**settings, "logits_bias": bias is not None and bool(bias.any())}
        name = next((each for each in TABLES if each in tensors), None)
        if name is None:
            return known
        # The sines are computed at the size of the table, which is in memory: a config may state any.
        shape = tuple(tensors[name].shape)
        if shape != (longest, settings["d_model"]):
            raise UnsupportedSettingError(
                f"{name} has shape {shape}, but max_position_embeddings and d_model are {longest} and "
                f"{settings['d_model']}"
            )
        return {**known, "table_shape": shape}


def compute_sines(positions: int, dim: int) -> Float[Tensor, "n D"]:
    """Return the sines of all positions, then the cosines."""
    powers = 2 * torch.arange(-(-dim // 2), dtype=torch.float64) / dim
    angles = torch.arange(positions, dtype=torch.float64)[:, None] / 10_000**powers
    return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :dim].float()


def _make_attention(side: str) -> dict[str, Any]:
    return part(
        "Attention",
        heads=Setting(f"{side}_attention_heads"),
        projection=part("MultiHead", bias=True),
        position=None,
        output_projection=part("BiasedOutput"),
    )


def _make_bias_rule(settings: Mapping[str, Any]) -> Rule:
    if not settings["logits_bias"]:
        return FixedTensor(BIAS, torch.zeros(1, settings["vocab_size"]))
    owner = "decoder.head" if settings["tie_word_embeddings"] else "decoder.head.to_logits"
    return TensorRule(f"{owner}.bias", (BIAS,), row=True)


def _list_table_rules(settings: Mapping[str, Any]) -> Iterator[Rule]:
    """Yield the rules of the tables of tokens: one, two, or two and another for the output."""
    encoder, decoder = (f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder"))
    if settings["share_encoder_decoder_embeddings"]:
        shared = "model.shared.weight"
        yield TensorRule("decoder.token_embedding.weight", (shared,))
        for name in (encoder, decoder, "lm_head.weight"):
            yield RepeatedTensor(name, shared)
        return
    yield TensorRule("encoder.token_embedding.weight", (encoder,))
    yield TensorRule("decoder.token_embedding.weight", (decoder,))
    if settings["tie_word_embeddings"]:
        yield RepeatedTensor("lm_head.weight", decoder)
    else:
        yield TensorRule("decoder.head.to_logits.weight", ("lm_head.weight",))


def _list_layer_rules(side: str, layer: int) -> Iterator[Rule]:
    ours, theirs = f"{side}.stack.sublayers.{layer}_", f"model.{side}.layers.{layer}."
    norms = {"attention": "self_attn_layer_norm", "feedforward": "final_layer_norm"}
    if side == "decoder":
        norms["cross_attention"] = "encoder_attn_layer_norm"
    for kind in ("weight", "bias"):
        own = "gain" if kind == "weight" else "bias"
        for sublayer, name in norms.items():
            yield TensorRule(f"{ours}{sublayer}.placement.norm_stream.{own}", (f"{theirs}{name}.{kind}",))
        q, k, v = (f"{theirs}self_attn.{name}_proj.{kind}" for name in "qkv")
        branch = f"{ours}attention.branch."
        yield TensorRule(f"{branch}projection.to_qkv.{kind}", (q, k, v))
        yield TensorRule(f"{branch}output_projection.to_out.{kind}", (f"{theirs}self_attn.out_proj.{kind}",))
        branch = f"{ours}feedforward.branch.feedforward."
        yield TensorRule(f"{branch}to_hidden.{kind}", (f"{theirs}fc1.{kind}",))
        yield TensorRule(f"{branch}to_out.{kind}", (f"{theirs}fc2.{kind}",))
        if side == "encoder":
            continue
        q, k, v = (f"{theirs}encoder_attn.{name}_proj.{kind}" for name in "qkv")
        branch = f"{ours}cross_attention.branch."
        yield TensorRule(f"{branch}projection.to_q.{kind}", (q,))
        yield TensorRule(f"{branch}projection.to_kv.{kind}", (k, v))
        yield TensorRule(f"{branch}output_projection.to_out.{kind}", (f"{theirs}encoder_attn.out_proj.{kind}",))
