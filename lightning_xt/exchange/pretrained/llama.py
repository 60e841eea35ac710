from typing import ClassVar

from lightning_xt.exchange.pretrained.gated_decoder import GatedDecoder
from lightning_xt.exchange.templates import Setting


class Llama(GatedDecoder):
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
    feedforward_options: ClassVar = {"bias": Setting("mlp_bias")}
    norms: ClassVar = {
        "attention.placement.norm_before": "input_layernorm",
        "feedforward.placement.norm_before": "post_attention_layernorm",
    }
