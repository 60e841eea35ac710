"""Catalogue for the laws: every variant of every family, found by discovery, each in a small decoder.

Sizes are small and mostly different primes, so that an exchange of two axes fails.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.activations.base import Activation
from lightning_xt.nn.activations.gelu import GELU
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.base import Mixer
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.attention.layerwise_attention import LayerwiseAttention
from lightning_xt.nn.contexts.base import Context
from lightning_xt.nn.contexts.given_context import GivenContext
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.nn.embeddings.bigram_table import BigramTable
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.nn.feedforward.feed_forward_cycle import FeedForwardCycle
from lightning_xt.nn.feedforward.gated_mlp import GatedMLP
from lightning_xt.nn.feedforward.layerwise_feed_forward import LayerwiseFeedForward
from lightning_xt.nn.feedforward.mixture_of_experts import MixtureOfExperts
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.feedforward.swiglu import SwiGLU
from lightning_xt.nn.heads.base import Head
from lightning_xt.nn.heads.soft_cap_head import SoftCapHead
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.heads.untied_head import UntiedHead
from lightning_xt.nn.layouts.base import Layout
from lightning_xt.nn.layouts.custom_order import CustomOrder
from lightning_xt.nn.layouts.layer_order import LayerOrder
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.layouts.parallel import Parallel
from lightning_xt.nn.links.base import Link
from lightning_xt.nn.links.depth_attention import DepthAttention
from lightning_xt.nn.links.reinjection import Reinjection
from lightning_xt.nn.links.u_net_skips import UNetSkips
from lightning_xt.nn.mixers.delta_net import DeltaNet
from lightning_xt.nn.mixers.gated_delta_net import GatedDeltaNet
from lightning_xt.nn.mixers.hybrid import Hybrid
from lightning_xt.nn.mixers.mamba2 import Mamba2
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.normalizers.sink_softmax import SinkSoftmax
from lightning_xt.nn.normalizers.stick_breaking import StickBreaking
from lightning_xt.nn.normalizers.top_k_softmax import TopKSoftmax
from lightning_xt.nn.norms.adaptive_layer_norm import AdaptiveLayerNorm
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.norms.base import Norm
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.norms.unit_norm import UnitNorm
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.nn.output_projections.base import OutputProjection
from lightning_xt.nn.output_projections.biased_output import BiasedOutput
from lightning_xt.nn.passes.base import Passes
from lightning_xt.nn.passes.recycling import Recycling
from lightning_xt.nn.placements.base import Placement
from lightning_xt.nn.placements.post_norm import PostNorm
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.base import Position
from lightning_xt.nn.positions.combined import Combined
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.positions.dynamic_bias import DynamicBias
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.path import PaTH
from lightning_xt.nn.positions.polar import Polar
from lightning_xt.nn.positions.relative_bias import RelativeBias
from lightning_xt.nn.positions.relative_sinusoidal import RelativeSinusoidal
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.positions.shared_relative_bias import SharedRelativeBias
from lightning_xt.nn.projections.base import Projection
from lightning_xt.nn.projections.differential import Differential
from lightning_xt.nn.projections.kv_shift import KVShift
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.projections.partial_key_offset import PartialKeyOffset
from lightning_xt.nn.projections.shared_kv import SharedKV
from lightning_xt.nn.residuals.base import Residual
from lightning_xt.nn.residuals.hyper_connection import HyperConnection
from lightning_xt.nn.rope_scalings.base import RopeScaling
from lightning_xt.nn.rope_scalings.yarn_scaling import YarnScaling
from lightning_xt.nn.scales.adaptive_layer_scale import AdaptiveLayerScale
from lightning_xt.nn.scales.base import Scale
from lightning_xt.nn.score_mods.base import ScoreMod
from lightning_xt.nn.score_mods.multi_token import MultiToken
from lightning_xt.nn.score_mods.selective import Selective
from lightning_xt.nn.score_mods.soft_cap import SoftCap
from lightning_xt.nn.scores.base import Score
from lightning_xt.nn.scores.dot_product import DotProduct
from lightning_xt.nn.segments.base import Segments
from lightning_xt.nn.shifts.base import Shift
from lightning_xt.nn.shifts.canon import Canon
from lightning_xt.nn.shifts.shift_cycle import ShiftCycle
from lightning_xt.nn.shifts.token_shift import TokenShift
from lightning_xt.nn.value_mods.base import ValueMod
from lightning_xt.nn.value_mods.value_residual import ValueResidual
from lightning_xt.system.discovery import find_variants

VOCAB, DIM, DEPTH, HEADS, DIM_HEAD, CONTEXT, VECTORS, CONDITION = 11, 13, 2, 4, 6, 5, 3, 17

Build = Callable[[], Decoder]
Options = dict[str, Any]
Model = TypeVar("Model", bound=nn.Module)


def attention(**options: Any) -> Any:
    """Return a recipe of small attention."""
    return partial(Attention, **{"heads": HEADS, "dim_head": DIM_HEAD, **options})


def decoder(**options: Any) -> Decoder:
    """Build a small decoder."""
    return Decoder(VOCAB, **{"dim": DIM, "depth": DEPTH, "attention": attention(), **options})


def context_options(**options: Any) -> Options:
    """Return the options of a decoder that reads a context by cross-attention."""
    return {"cross_attention": attention(**options), "context": partial(GivenContext, dim=CONTEXT)}


def context_decoder(**options: Any) -> Decoder:
    """Build a small decoder that reads a context by cross-attention."""
    return decoder(**context_options(**options))


def delta_net(**options: Any) -> Any:
    """Return a recipe of a small recurrence."""
    return partial(DeltaNet, **{"heads": HEADS, "dim_head": DIM_HEAD, "chunk": 4, **options})


# Family, and the options that put one of its variants into a model. A new variant needs no row; a new family does.
FAMILIES: dict[str, tuple[type, Callable[[Any], Options]]] = {
    "norm": (Norm, lambda v: {"norm": v}),
    "qk_norm": (Norm, lambda v: {"attention": attention(qk_norm=v)}),
    "embeddings": (Embedding, lambda v: {"embeddings": [v]}),
    "context": (Context, lambda v: {"cross_attention": attention(position=None), "context": v}),
    "position": (Position, lambda v: {"attention": attention(position=v)}),
    "rope_scaling": (RopeScaling, lambda v: {"attention": attention(position=partial(Rotary, rope_scaling=v))}),
    "projection": (Projection, lambda v: {"attention": attention(projection=v)}),
    "score": (Score, lambda v: {"attention": attention(score=v)}),
    "score_mods": (ScoreMod, lambda v: {"attention": attention(score_mods=[v])}),
    "normalizer": (Normalizer, lambda v: {"attention": attention(normalizer=v)}),
    "value_mods": (ValueMod, lambda v: {"attention": attention(value_mods=[v])}),
    "output_mods": (OutputMod, lambda v: {"attention": attention(output_mods=[v])}),
    "output_projection": (OutputProjection, lambda v: {"attention": attention(output_projection=v)}),
    "attention": (Mixer, lambda v: {"attention": v}),
    "activation": (Activation, lambda v: {"feedforward": partial(MLP, activation=v)}),
    "feedforward": (FeedForward, lambda v: {"feedforward": v}),
    "shift": (Shift, lambda v: {"shift": v}),
    "residual": (Residual, lambda v: {"residual": v}),
    "placement": (Placement, lambda v: {"placement": v}),
    "scale": (Scale, lambda v: {"scale": v}),
    "links": (Link, lambda v: {"links": [v]}),
    "layout": (Layout, lambda v: {"layout": v}),
    "passes": (Passes, lambda v: {"passes": v}),
    "head": (Head, lambda v: {"head": v}),
    "segments": (Segments, lambda v: {"segments": v}),
}

# Options that a variant requires, or that its tests need.
OPTIONS: dict[type, dict[str, Any]] = {
    Attention: {"heads": HEADS, "dim_head": DIM_HEAD},
    GivenContext: {"dim": CONTEXT},
    **{each: {"condition_dim": CONDITION} for each in (AdaptiveRMSNorm, AdaptiveLayerNorm, AdaptiveLayerScale)},
    **{scaling: {"factor": 3.0} for scaling in find_variants(RopeScaling)},
    Combined: {"positions": [Rotary, RelativeBias]},
    TopKSoftmax: {"num_keys": 3},
    MultiToken: {"num_queries": 3, "num_keys": 4},
    MixtureOfExperts: {"num_experts": 3, "expert": partial(SwiGLU, hidden_dim=5)},
    ShiftCycle: {"shifts": [None, TokenShift]},
    CustomOrder: {"order": "aaff"},
    LayerOrder: {"order": [1, 0, 1]},
    **{passes: {"passes": 2} for passes in find_variants(Passes)},
    Cycle: {"recipes": [attention(window=3), attention(position=None)]},
    LayerwiseAttention: {
        "recipe": partial(Attention, dim_head=DIM_HEAD),
        "options": {"heads": [2, 4], "window": [None, 3], "dropout": [0.0, 0.1]},
    },
    LayerwiseFeedForward: {"recipe": MLP, "options": {"hidden_dim": [7, 17]}},
    FeedForwardCycle: {"recipes": [partial(MLP, hidden_dim=7), SwiGLU]},
    GatedDeltaNet: delta_net(value_dim=7).keywords,
    DeltaNet: delta_net(max_beta=2.0).keywords,
    Mamba2: {"heads": HEADS, "dim_head": DIM_HEAD, "state_dim": 3, "groups": 2, "chunk": 4},
    Hybrid: {"recipes": [attention(window=3), delta_net()]},
    # Rows of the laws of documents and padding fit into one segment, those of the laws of caches do not.
    **{segments: {"length": 8, "memory": 5} for segments in find_variants(Segments)},
}

# Choices that are options rather than classes, and pairs that share state: caches break on these.
CASES: dict[str, Options] = {
    "plain": {},
    "kv_heads": {"attention": attention(kv_heads=2)},
    "one_kv_head": {"attention": attention(kv_heads=1, qk_norm=RMSNorm)},
    "window": {"attention": attention(window=3)},
    "window_2": {"attention": attention(window=2)},
    "memory": {"attention": attention(memory=3)},
    "memory-window-kv_heads-alibi": {"attention": attention(memory=3, window=3, kv_heads=2, position=ALiBi)},
    "sink-memory-window-kv_heads": {"attention": attention(normalizer=SinkSoftmax, memory=3, window=3, kv_heads=2)},
    "stick_breaking-window-memory": {
        "attention": attention(normalizer=StickBreaking, position=None, window=3, memory=3)
    },
    "multi_token-selective-window-memory": {
        "attention": attention(score_mods=[partial(MultiToken, num_keys=3), Selective], window=3, memory=3, kv_heads=2)
    },
    "memory-forgetting": {"attention": attention(memory=3, position=Forgetting)},
    "window-forgetting": {"attention": attention(window=3, position=Forgetting)},
    "partial_rotary": {"attention": attention(position=partial(Rotary, rotary_dim=4))},
    "alibi-biased_heads": {"attention": attention(position=partial(ALiBi, biased_heads=3))},
    "combined-forgetting-window": {
        "attention": attention(position=partial(Combined, positions=[Forgetting, ALiBi, Rotary, Forgetting]), window=3)
    },
    "contextual-window-memory": {"attention": attention(position=Contextual, window=3, memory=3)},
    "path-kv_heads-memory-window": {"attention": attention(position=PaTH, kv_heads=2, memory=3, window=3)},
    "polar-kv_heads-memory-value_dim": {"attention": attention(position=Polar, kv_heads=2, memory=3, value_dim=5)},
    "relative_sinusoidal-kv_heads-memory-window": {
        "attention": attention(position=partial(RelativeSinusoidal, num_features=4), kv_heads=2, memory=3, window=3)
    },
    "rotary-rotated_heads-memory": {"attention": attention(position=partial(Rotary, rotated_heads=2), memory=3)},
    "looped-shared_relative_bias-window": {
        "layout": Looped,
        "attention": attention(position=SharedRelativeBias, window=3),
    },
    "no_position": {"attention": attention(position=None)},
    "value_dim-memory-kv_heads": {"attention": attention(value_dim=3, memory=3, kv_heads=2, k_norm=RMSNorm)},
    "value_dim-latent": {"attention": attention(value_dim=3, projection=Latent)},
    "soft_cap-relative_bias": {"attention": attention(score_mods=[SoftCap], position=RelativeBias)},
    "kv_shift-partial_key_offset-kv_heads-window": {
        "attention": attention(projection=partial(KVShift, projection=PartialKeyOffset), kv_heads=2, window=3)
    },
    "latent-query_latent-window": {
        "attention": attention(projection=partial(Latent, query_latent_dim=7, latent_dim=5, rotary_dim=4), window=3)
    },
    "latent-forgetting": {"attention": attention(projection=Latent, position=Forgetting)},
    "latent-alibi": {"attention": attention(projection=Latent, position=ALiBi)},
    "value_residual-kv_heads": {"attention": attention(value_mods=[ValueResidual], kv_heads=2)},
    "embedding_dim-tied_head": {"embedding_dim": 5, "head": TiedHead},
    "bigram_table-hashed": {"embeddings": [partial(BigramTable, max_rows=17)]},
    "hidden_norm": {"feedforward": partial(SwiGLU, hidden_norm=LayerNorm, hidden_gain=True)},
    "biases": {
        "attention": attention(projection=partial(MultiHead, bias=True), output_projection=BiasedOutput),
        "head": partial(UntiedHead, bias=True),
    },
    "gelu-tanh-rms_norm-zero_centered": {
        "feedforward": partial(GatedMLP, activation=partial(GELU, approximate="tanh")),
        "norm": partial(RMSNorm, zero_centered=True),
        "attention": attention(qk_norm=partial(RMSNorm, zero_centered=True)),
    },
    "tied_head-scale-bias-soft_cap": {"head": partial(SoftCapHead, head=partial(TiedHead, scale=None, bias=True))},
    "dot_product-scale-relative_bias-window": {
        "attention": attention(score=partial(DotProduct, scale=1.0), position=RelativeBias, window=3)
    },
    "dot_product-scale-latent": {"attention": attention(score=partial(DotProduct, scale=0.7), projection=Latent)},
    "dot_product-scale-multi_token-selective": {
        "attention": attention(
            score=partial(DotProduct, scale=0.7), score_mods=[partial(MultiToken, num_keys=3), Selective]
        )
    },
    "yarn_scaling-pairs": {
        "attention": attention(
            position=partial(Rotary, rope_scaling=partial(YarnScaling, factor=4.0, original_length=64, ramp="pairs"))
        )
    },
    "layer_norm-bias": {"norm": partial(LayerNorm, bias=True)},
    "adaptive_norm-mlp-post_norm-hyper_connection": {
        "norm": partial(AdaptiveLayerNorm, condition_dim=CONDITION, mlp_expansion=0.5),
        "placement": PostNorm,
        "residual": HyperConnection,
    },
    "qk_unit_norm-groups": {"attention": attention(qk_norm=partial(UnitNorm, groups=2, gain="feature"))},
    "looped-token_shift": {"layout": partial(Looped, loops=3), "shift": TokenShift},
    "looped-canon-window_2": {"layout": Looped, "shift": Canon, "attention": attention(window=2)},
    "token_shift-max_distance": {"shift": partial(TokenShift, fraction=0.8, max_distance=3)},
    "dynamic_bias-norm": {"attention": attention(position=partial(DynamicBias, norm=LayerNorm, log_distance=False))},
    "looped-forgetting-hyper_connection": {
        "layout": Looped,
        "residual": HyperConnection,
        "attention": attention(position=Forgetting),
    },
    "looped-links-hyper_connection": {
        "layout": Looped,
        "residual": HyperConnection,
        "links": [UNetSkips, DepthAttention, partial(Reinjection, gated=True)],
    },
    "looped-value_residual": {"layout": Looped, "attention": attention(value_mods=[ValueResidual])},
    "differential-kv_heads-memory-window-relative_bias": {
        "attention": attention(
            projection=Differential, kv_heads=2, memory=3, window=3, position=RelativeBias, value_mods=[ValueResidual]
        )
    },
    "shared_kv-cycle-window-memory-hyper_connection": {
        "depth": 4,
        "residual": HyperConnection,
        "attention": partial(
            Cycle,
            recipes=[
                attention(projection=SharedKV, window=3, qk_norm=RMSNorm),
                attention(projection=partial(SharedKV, shared_layer=1), window=3, memory=3, position=Forgetting),
            ],
        ),
    },
    "hybrid-two_attentions": {
        "attention": partial(Hybrid, recipes=[attention(window=3), attention(memory=3, position=Forgetting)])
    },
    "cycle-recurrence-attention-token_shift": {
        "attention": partial(Cycle, recipes=[delta_net(conv_width=1), attention(value_mods=[ValueResidual])]),
        "shift": TokenShift,
    },
    "checkpoint_layers-alibi-unet": {
        "checkpoint_layers": True,
        "attention": attention(position=ALiBi, value_mods=[ValueResidual]),
        "links": [UNetSkips],
    },
    "parallel-recycling-memory-forgetting": {
        "layout": Parallel,
        "passes": partial(Recycling, passes=3),
        "attention": attention(memory=3, position=Forgetting, window=3),
    },
    "looped-recurrence": {
        "layout": Looped,
        "attention": partial(Mamba2, heads=HEADS, dim_head=DIM_HEAD, state_dim=3, chunk=4),
    },
    "given_context-recurrence": {**context_options(position=None), "attention": delta_net()},
    "given_context": context_options(position=None),
    "given_context-rotary-kv_heads": context_options(kv_heads=2),
    "given_context-latent": context_options(position=None, projection=Latent),
    "given_context-value_residual-memory": context_options(value_mods=[ValueResidual], memory=3),
    "given_context-relative_bias": context_options(position=RelativeBias),
}


def list_variants(family: type) -> list[type]:
    """List the variants of a family, in a fixed order."""
    own = {variant for variant in find_variants(family) if variant.__module__.startswith("lightning_xt.")}
    return sorted(own, key=lambda variant: variant.__name__)


def _place_variant(place: Callable[[Any], Options], variant: type) -> Options:
    return place(partial(variant, **OPTIONS[variant]) if variant in OPTIONS else variant)


PLACED: dict[str, tuple[type, Options]] = {
    f"{slot}={variant.__name__}": (variant, _place_variant(place, variant))
    for slot, (family, place) in FAMILIES.items()
    for variant in list_variants(family)
}
ENCODERS_ONLY = {name: options for name, (variant, options) in PLACED.items() if getattr(variant, "sees_ahead", False)}
"""Recipes that a decoder refuses, because a token would depend on later ones."""
RECIPES: dict[str, Options] = {
    **{name: options for name, (_, options) in PLACED.items() if name not in ENCODERS_ONLY},
    **CASES,
}
BUILDS: dict[str, Build] = {name: partial(decoder, **options) for name, options in RECIPES.items()}
ALL = pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in BUILDS.items()])


def randomise(build: Callable[[], Model], dtype: torch.dtype = torch.float64) -> Model:
    """Build a model in evaluation mode, with noise on all parameters, as initial values may hide their effect."""
    torch.manual_seed(5)
    model = build().to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@cache
def shared(build: Build, dtype: torch.dtype = torch.float64) -> Any:
    """Return the one randomised model of a build, for laws that leave it as it is."""
    return randomise(build, dtype)


def example(rows: int, n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Inputs]:
    """Return tokens, and all inputs that a part may read besides them."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(0, VOCAB, (rows, n), generator=generator)
    context = torch.randn(rows, VECTORS, CONTEXT, generator=generator).to(dtype)
    mask = torch.ones(rows, VECTORS, dtype=torch.bool)
    mask[0, 2:] = False
    types = torch.randint(0, 2, (rows, n), generator=generator)
    condition = torch.randn(rows, CONDITION, generator=generator).to(dtype)
    return tokens, Inputs(context=context, context_mask=mask, types=types, condition=condition)


def crop(inputs: Inputs, tokens: slice, rows: slice | Tensor = slice(None)) -> Inputs:
    """Return the inputs of some tokens of some rows."""

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows]

    return replace(
        inputs,
        condition=cut(inputs.condition),
        context=cut(inputs.context),
        context_mask=cut(inputs.context_mask),
        types=None if inputs.types is None else inputs.types[rows, tokens],
    )


def attention_layers(model: nn.Module) -> Sequence[Attention]:
    """Return the attention layers of a model."""
    return [module for module in model.modules() if isinstance(module, Attention)]


def recurrences(model: nn.Module) -> Sequence[Mixer]:
    """Return the mixers of a model that carry a running state."""
    return [module for module in model.modules() if isinstance(module, Mixer) and module.recurrent]


def carries_state(model: nn.Module) -> bool:
    """Return whether a part of a model carries a running state: a recurrence, or memories of segments."""
    return bool(recurrences(model)) or any(isinstance(module, Segments) for module in model.modules())


def looks_back(model: nn.Module) -> bool:
    """Return whether a model has a part for causal self-attention only."""
    return bool(recurrences(model)) or any(layer.looking_back is not None for layer in attention_layers(model))


def count_draws(model: nn.Module) -> int:
    """Return how many forwards in training call every part, some of which draw whether they do anything."""
    return 16 if any(isinstance(module, Passes) for module in model.modules()) else 1
