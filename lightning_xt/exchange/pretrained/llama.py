from collections.abc import Mapping
from typing import Any, ClassVar

from lightning_xt.exchange.pretrained.base import PretrainedShape
from lightning_xt.exchange.pretrained.gated_decoder import list_gated_decoder_rules
from lightning_xt.exchange.pretrained.rope import read_rope, rotary_template, write_rope
from lightning_xt.exchange.templates import Choice, Setting, part
from lightning_xt.exchange.tensor_rules import Rule


class Llama(PretrainedShape):
    """Llama: grouped keys and values, rotary positions, SwiGLU, RMSNorm before each sublayer.

    Touvron et al., 2023. https://arxiv.org/abs/2302.13971
    """

    label, model_type, architecture = "Llama", "llama", "LlamaForCausalLM"
    overlay: ClassVar = "architectures/llama3.yaml"
    defaults: ClassVar = {
        "num_key_value_heads": None,
        "head_dim": None,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
    }
    constants: ClassVar = {"hidden_act": "silu"}

    @property
    def template(self) -> dict[str, Any]:
        attention = part(
            "Attention",
            heads=Setting("num_attention_heads"),
            kv_heads=Setting("num_key_value_heads", lambda known: known["num_attention_heads"]),
            dim_head=Setting("head_dim", lambda known: known["hidden_size"] // known["num_attention_heads"]),
            projection=part("MultiHead", bias=Setting("attention_bias")),
            position=rotary_template(),
            output_projection=Choice("attention_bias", {False: None, True: part("BiasedOutput")}),
        )
        hidden = Setting("intermediate_size", lambda known: 8 * -(-known["hidden_size"] // 3))
        decoder = part(
            "Decoder",
            dim=Setting("hidden_size"),
            depth=Setting("num_hidden_layers"),
            attention=attention,
            feedforward=part("SwiGLU", hidden_dim=hidden, bias=Setting("mlp_bias")),
            norm=part("RMSNorm", eps=Setting("rms_norm_eps")),
            head=Choice("tie_word_embeddings", {False: part("UntiedHead"), True: part("TiedHead")}),
        )
        return {"decoder": decoder}

    def list_rules(self, settings: Mapping[str, Any]) -> list[Rule]:
        norms = {
            "attention.placement.norm_before": "input_layernorm",
            "feedforward.placement.norm_before": "post_attention_layernorm",
        }
        return list(list_gated_decoder_rules(settings, norms))

    def write_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return super().write_config(write_rope(settings))

    def read_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return super().read_config(config) | read_rope(config, 10_000.0)
