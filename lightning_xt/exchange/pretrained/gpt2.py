from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_xt.exchange.pretrained.activation_names import ACTIVATIONS, check_activation
from lightning_xt.exchange.pretrained.base import PretrainedShape
from lightning_xt.exchange.templates import Choice, Setting, part
from lightning_xt.exchange.tensor_rules import FixedTensor, RepeatedTensor, Rule, TensorRule

ROOT = "transformer."
"""Start of the names of tensors; the first folders of GPT-2 have none."""


class GPT2(PretrainedShape):
    """GPT-2: learned positions, LayerNorm before each sublayer, biases everywhere.

    Radford et al., 2019. https://github.com/openai/gpt-2
    """

    label, model_type, architecture = "GPT-2", "gpt2", "GPT2LMHeadModel"
    overlay: ClassVar = "architectures/gpt2.yaml"
    depth_settings, length_setting = ("n_layer",), "n_positions"
    defaults: ClassVar = {
        "n_positions": 1024,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    }
    constants: ClassVar = {"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}

    @property
    def template(self) -> dict[str, Any]:
        attention = part(
            "Attention",
            heads=Setting("n_head"),
            kv_heads=Setting("n_head", lambda known: known["n_head"]),
            projection=part("MultiHead", bias=True),
            position=None,
            score=Choice("scale_attn_weights", {True: part("DotProduct"), False: part("DotProduct", scale=1.0)}),
            output_projection=part("BiasedOutput"),
        )
        feedforward = part(
            "MLP",
            hidden_dim=Setting("n_inner", lambda known: 4 * known["n_embd"]),
            activation=Choice("activation_function", ACTIVATIONS),
            bias=True,
        )
        decoder = part(
            "Decoder",
            dim=Setting("n_embd"),
            depth=Setting("n_layer"),
            attention=attention,
            feedforward=feedforward,
            norm=part("LayerNorm", eps=Setting("layer_norm_epsilon"), bias=True),
            embeddings=[part("LearnedPositions", max_length=Setting("n_positions"))],
            head=Choice("tie_word_embeddings", {True: part("TiedHead"), False: part("UntiedHead")}),
        )
        return {"decoder": decoder}

    def list_rules(self, settings: Mapping[str, Any]) -> list[Rule]:
        root, positions = settings.get("root", ROOT), settings["n_positions"]
        rules: list[Rule] = [
            TensorRule("token_embedding.weight", (f"{root}wte.weight",)),
            TensorRule("embeddings.0.table.weight", (f"{root}wpe.weight",)),
        ]
        # Not without a mask in the folder: it grows with the square of the positions.
        size = positions if settings.get("mask_length") == positions else 0
        visible = torch.ones(1, 1, size, size).tril()
        for layer in range(settings["n_layer"]):
            theirs = f"{root}h.{layer}."
            rules += _list_layer_rules(f"stack.sublayers.{layer}_", theirs)
            # Older folders hold the mask.
            rules.append(FixedTensor(f"{theirs}attn.bias", visible, written=False))
            rules.append(FixedTensor(f"{theirs}attn.masked_bias", torch.tensor(-1e4), written=False))
        rules += _list_norm_rules("stack.output_norm", f"{root}ln_f")
        if settings["tie_word_embeddings"]:
            return [*rules, RepeatedTensor("lm_head.weight", f"{root}wte.weight")]
        return [*rules, TensorRule("head.to_logits.weight", ("lm_head.weight",))]

    def read_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        known = super().read_config(config)
        check_activation(known, "activation_function")
        return known

    def complete_settings(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        masks = (each.shape[-1] for name, each in tensors.items() if name.endswith(".attn.bias") and each.dim() == 4)
        root = "" if "wte.weight" in tensors else ROOT
        return {**settings, "root": root, "mask_length": next(masks, None)}


def _list_layer_rules(ours: str, theirs: str) -> Iterator[Rule]:
    maps = {
        "attention.branch.projection.to_qkv": "attn.c_attn",
        "attention.branch.output_projection.to_out": "attn.c_proj",
        "feedforward.branch.feedforward.to_hidden": "mlp.c_fc",
        "feedforward.branch.feedforward.to_out": "mlp.c_proj",
    }
    for own, name in maps.items():
        # Matrices there have a column for each output.
        yield TensorRule(f"{ours}{own}.weight", (f"{theirs}{name}.weight",), transposed=True)
        yield TensorRule(f"{ours}{own}.bias", (f"{theirs}{name}.bias",))
    yield from _list_norm_rules(f"{ours}attention.placement.norm_before", f"{theirs}ln_1")
    yield from _list_norm_rules(f"{ours}feedforward.placement.norm_before", f"{theirs}ln_2")


def _list_norm_rules(ours: str, theirs: str) -> Iterator[Rule]:
    yield TensorRule(f"{ours}.gain", (f"{theirs}.weight",))
    yield TensorRule(f"{ours}.bias", (f"{theirs}.bias",))
