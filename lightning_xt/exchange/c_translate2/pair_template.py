"""Template of the encoder-decoders that CTranslate2 computes."""

from itertools import product
from typing import Any

from lightning_xt.exchange.templates import Choice, Setting, part

ACTIVATIONS = {
    "relu": part("ReLU"),
    "gelu": part("GELU"),
    "gelu_tanh": part("GELU", approximate="tanh"),
    "silu": part("SiLU"),
}
"""Activations by our name of those of CTranslate2."""


def make_template() -> dict[str, Any]:
    """Return the template; settings of one side begin with its name."""
    encoder, decoder = _make_side("encoder"), _make_side("decoder")
    bias = Setting("logits_bias")
    heads = {
        "tied": part("TiedHead", scale=Setting("logits_scale"), bias=bias),
        "untied": part("UntiedHead", bias=bias),
    }
    cross = _make_attention("decoder", "cross", None)
    return {
        "encoder": part("Encoder", **encoder),
        "decoder": part("Decoder", **decoder, cross_attention=cross, head=Choice("head", heads)),
        "shared_embedding": Setting("shared_embedding"),
    }


def _make_side(side: str) -> dict[str, Any]:
    return {
        "dim": Setting("dim"),
        "depth": Setting(f"{side}_depth"),
        "attention": _make_attention(side, "self", _make_positions(side)),
        "feedforward": _make_feedforward(side),
        "norm": _make_norm(f"{side}_norm"),
        "placement": Choice(f"{side}_placement", {"pre": part("PreNorm"), "post": part("PostNorm")}),
        "embeddings": _make_embeddings(side),
    }


def _make_attention(side: str, kind: str, position: Any) -> dict[str, Any]:
    own = f"{side}_{kind}"
    return part(
        "Attention",
        heads=Setting(f"{side}_heads"),
        kv_heads=Setting(f"{side}_kv_heads", lambda known: known[f"{side}_heads"]),
        dim_head=Setting(f"{own}_dim_head", lambda known: known["dim"] // known[f"{side}_heads"]),
        projection=part("MultiHead", bias=Setting(f"{own}_bias")),
        position=position,
        score=part("DotProduct", scale=Setting(f"{own}_scale", lambda known: known[f"{own}_dim_head"] ** -0.5)),
        output_projection=Choice(f"{own}_output_bias", {False: None, True: part("BiasedOutput")}),
    )


def _make_positions(side: str) -> Choice:
    """Return the positions in attention, which a cross-attention there cannot have."""
    sizes = {"num_buckets": Setting(f"{side}_num_buckets"), "max_distance": Setting(f"{side}_max_distance")}
    kinds = {
        "none": None,
        "shared_bias": part("SharedRelativeBias", **sizes),
        "bias": part("RelativeBias", **sizes),
        "rotary": part("Rotary", base=Setting(f"{side}_rotary_base")),
    }
    return Choice(f"{side}_position", kinds)


def _make_feedforward(side: str) -> Choice:
    options = {"hidden_dim": Setting(f"{side}_hidden_dim", lambda known: 0), "bias": Setting(f"{side}_ffn_bias")}
    kinds = {f"mlp {name}": part("MLP", activation=each, **options) for name, each in ACTIVATIONS.items()}
    kinds |= {f"gated {name}": part("GatedMLP", activation=each, **options) for name, each in ACTIVATIONS.items()}
    for kind, name in (("SwiGLU", "silu"), ("GEGLU", "gelu"), ("ReGLU", "relu")):
        kinds[f"gated {name} of {kind}"] = part(kind, **options)
    return Choice(f"{side}_feedforward", kinds)


def _make_norm(name: str) -> Choice:
    """Return the norms; all of a model have one epsilon there."""
    eps = Setting("eps")
    kinds = {
        "rms": part("RMSNorm", eps=eps),
        "zero_centered": part("RMSNorm", eps=eps, zero_centered=True),
        "layer": part("LayerNorm", eps=eps),
        "layer with bias": part("LayerNorm", eps=eps, bias=True),
    }
    return Choice(name, kinds)


def _make_embeddings(side: str) -> Choice:
    """Return the lists of embeddings: a factor, positions and a norm, in this order, each of which may be missing."""
    scale = part("EmbeddingScale", factor=Setting(f"{side}_factor", lambda known: known["dim"] ** 0.5))
    sines = part(
        "SinusoidalPositions",
        base=Setting(f"{side}_sines_base"),
        learned_scale=Setting(f"{side}_sines_scale"),
    )
    learned = part("LearnedPositions", max_length=Setting(f"{side}_positions"))
    norm = part("EmbeddingNorm", norm=_make_norm(f"{side}_embedding_norm"))
    parts = ({"scale": scale, "": None}, {"sines": sines, "learned": learned, "": None}, {"norm": norm, "": None})
    lists = {}
    for chosen in product(*(each.items() for each in parts)):
        lists[" ".join(name for name, _ in chosen if name)] = [each for _, each in chosen if each is not None]
    return Choice(f"{side}_embeddings", lists)
