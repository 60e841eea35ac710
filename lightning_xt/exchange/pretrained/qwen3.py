from typing import ClassVar

from lightning_xt.exchange.pretrained.gated_decoder import GatedDecoder
from lightning_xt.exchange.templates import Setting, part


class Qwen3(GatedDecoder):
    """Qwen3: as Llama, with norms on queries and keys.

    Qwen Team, 2025. https://arxiv.org/abs/2505.09388
    """

    label, model_type, architecture = "Qwen3", "qwen3", "Qwen3ForCausalLM"
    overlay: ClassVar = "architectures/qwen3.yaml"
    defaults: ClassVar = {
        "num_key_value_heads": 32,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    }
    constants: ClassVar = {"hidden_act": "silu", "use_sliding_window": False}
    attention_options: ClassVar = {"qk_norm": part("RMSNorm", eps=Setting("rms_norm_eps"))}
    norms: ClassVar = {
        "attention.placement.norm_before": "input_layernorm",
        "attention.branch.q_norm": "self_attn.q_norm",
        "attention.branch.k_norm": "self_attn.k_norm",
        "feedforward.placement.norm_before": "post_attention_layernorm",
    }
