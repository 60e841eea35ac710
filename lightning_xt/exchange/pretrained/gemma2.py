from collections.abc import Mapping
from typing import Any, ClassVar

from lightning_xt.exchange.pretrained.activation_names import ACTIVATIONS, check_activation
from lightning_xt.exchange.pretrained.base import PretrainedShape, UnsupportedSettingError
from lightning_xt.exchange.pretrained.gated_decoder import attention_template, list_gated_decoder_rules
from lightning_xt.exchange.pretrained.rope import read_rope, write_rope
from lightning_xt.exchange.templates import Choice, Match, Mismatch, Setting, part
from lightning_xt.exchange.tensor_rules import Rule

GATED = {"GEGLU": "gelu", "SwiGLU": "silu", "ReGLU": "relu"}
"""Activations of the classes that have a fixed one."""
SLIDING, FULL = "sliding_attention", "full_attention"
OWN = ("layers", "score_scale", "caps_scores", "caps_logits")
"""Settings of the template that a config.json states otherwise."""


class Gemma2(PretrainedShape):
    """Gemma 2: windows in every second layer, norms before and after each sublayer, soft-caps on scores and logits.

    Gemma Team, 2024. https://arxiv.org/abs/2408.00118
    """

    label, model_type, architecture = "Gemma 2", "gemma2", "Gemma2ForCausalLM"
    overlay: ClassVar = "architectures/gemma2.yaml"
    defaults: ClassVar = {
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "layer_types": None,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    }

    @property
    def template(self) -> dict[str, Any]:
        sliding, full = _make_attention(Setting("sliding_window")), _make_attention(None)
        layers = {"alternating": part("Cycle", recipes=[sliding, full]), FULL: full, SLIDING: sliding}
        hidden = Setting("intermediate_size", lambda known: 8 * -(-known["hidden_size"] // 3))
        gated = {name: part("GatedMLP", hidden_dim=hidden, activation=each) for name, each in _sort_activations()}
        gated |= {name: part(name, hidden_dim=hidden) for name in GATED}
        head = Choice("tie_word_embeddings", {True: part("TiedHead"), False: part("UntiedHead")})
        capped = part("SoftCapHead", head=head, cap=Setting("final_logit_softcapping"))
        decoder = part(
            "Decoder",
            dim=Setting("hidden_size"),
            depth=Setting("num_hidden_layers"),
            attention=Choice("layers", layers),
            feedforward=Choice("hidden_activation", gated),
            norm=part("RMSNorm", eps=Setting("rms_norm_eps"), zero_centered=True),
            placement=part("SandwichNorm"),
            embeddings=[part("EmbeddingScale")],
            head=Choice("caps_logits", {True: capped, False: head}),
        )
        return {"decoder": decoder}

    def match(self, config: Mapping[str, Any]) -> Match:
        found = super().match(config)
        scale = found.settings.get("score_scale")
        if scale is not None and (not 0 < scale <= 1 or round(scale**-2) ** -0.5 != scale):
            path = "model.decoder.attention.score.scale"
            found.mismatches.append(Mismatch(path, str(scale), "the inverse root of a whole number"))
        return found

    def list_rules(self, settings: Mapping[str, Any]) -> list[Rule]:
        norms = {
            f"{sublayer}.placement.norm_{place}": f"{name}_layernorm"
            for sublayer, place, name in (
                ("attention", "before", "input"),
                ("attention", "after", "post_attention"),
                ("feedforward", "before", "pre_feedforward"),
                ("feedforward", "after", "post_feedforward"),
            )
        }
        branch = "attention.branch.mixer" if settings["layers"] == "alternating" else "attention.branch"
        # A head may stand in a cap.
        owner = "head.head" if settings["caps_logits"] else "head"
        return list(list_gated_decoder_rules(settings, norms, branch, owner))

    def write_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        depth, kind = settings["num_hidden_layers"], settings["layers"]
        types = [SLIDING, FULL] * depth if kind == "alternating" else [kind] * depth
        activation = settings["hidden_activation"]
        others = {name: value for name, value in settings.items() if name not in OWN}
        return super().write_config(
            {
                # Omitted ones have defaults. A window is required, also if no layer has one.
                "sliding_window": self.defaults["sliding_window"],
                "attn_logit_softcapping": None,
                "final_logit_softcapping": None,
                **write_rope(others),
                "hidden_activation": GATED.get(activation, activation),
                "layer_types": types[:depth],
                "query_pre_attn_scalar": round(settings["score_scale"] ** -2),
            }
        )

    def read_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        known = super().read_config(config) | read_rope(config, 10_000.0)
        check_activation(known, "hidden_activation")
        if known.get("use_bidirectional_attention"):
            raise UnsupportedSettingError("use_bidirectional_attention is True, but decoders here look back only")
        scalar = known["query_pre_attn_scalar"]
        return {
            **known,
            "layers": _choose_layers(known),
            "score_scale": None if scalar == known["head_dim"] else scalar**-0.5,
            "caps_scores": known["attn_logit_softcapping"] is not None,
            "caps_logits": known["final_logit_softcapping"] is not None,
        }


def _make_attention(window: Setting | None) -> dict[str, Any]:
    return attention_template(
        score=part("DotProduct", scale=Setting("score_scale", lambda known: known["head_dim"] ** -0.5)),
        score_mods=Choice("caps_scores", {True: [part("SoftCap", cap=Setting("attn_logit_softcapping"))], False: []}),
        window=window,
    )


def _sort_activations() -> list[tuple[str, Any]]:
    """Return the activations, that of Gemma first among the names of one."""
    return sorted(ACTIVATIONS.items(), key=lambda each: each[0] != "gelu_pytorch_tanh")


def _choose_layers(known: Mapping[str, Any]) -> str:
    """Return which layers have a window."""
    depth, types = known["num_hidden_layers"], known["layer_types"]
    alternating = ([SLIDING, FULL] * depth)[:depth]
    types = alternating if types is None else list(types)
    if known["sliding_window"] is None and SLIDING in types:
        raise UnsupportedSettingError("sliding_window is None, but layer_types has sliding_attention")
    if types == alternating and depth > 1:
        return "alternating"
    if types in ([SLIDING] * depth, [FULL] * depth):
        return str(types[0])
    raise UnsupportedSettingError(
        f"layer_types is {types}, but only {SLIDING} and {FULL} in turn, or one of them in all layers, have a "
        "counterpart here"
    )
