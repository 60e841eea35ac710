"""CTranslate2: every part that fits gives the same scores and tokens, and the others are named."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_xt import Seq2Seq
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.c_translate2 import CTranslate2
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.tokenizers.tokenizer_files import list_token_names

SINES = {"class_path": "SinusoidalPositions", "init_args": {"learned_scale": False}}
LEARNED = {"class_path": "LearnedPositions", "init_args": {"max_length": 64}}
LAYER_NORM = {"class_path": "LayerNorm", "init_args": {"eps": 1e-3, "bias": True}}
TANH = {"class_path": "GELU", "init_args": {"approximate": "tanh"}}


def attend(position: Any = None, **options: Any) -> dict[str, Any]:
    return {"class_path": "Attention", "init_args": {"heads": 4, "position": position, **options}}


def mlp(activation: Any = "ReLU", name: str = "MLP", **options: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": {"hidden_dim": 40, "activation": activation, **options}}


def make_side(attention: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    chosen = attend() if attention is None else attention
    return {"dim": 24, "depth": 2, "attention": chosen, "feedforward": mlp(), **options}


def export(encoder: dict[str, Any], decoder: dict[str, Any], vocab: tuple[int, int] = (259, 259)) -> ExportedModel:
    """Make a model with random weights, gains included."""
    torch.manual_seed(0)
    sizes = {"source": vocab[0], "target": vocab[1], "pad": 0, "start": 1, "end": 2}
    options = {"encoder": encoder, "decoder": {"cross_attention": attend(), **decoder}, "vocab": sizes}
    module = Seq2Seq.from_config(options).eval()
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.3 * torch.randn_like(each))
    return ExportedModel("runs/x", module, ExportOptions(tokens=40))


FINE_LAYER_NORM = {"class_path": "LayerNorm", "init_args": {"eps": 1e-6}}
COARSE = {"class_path": "RMSNorm", "init_args": {"eps": 1e-5}}
UNSCALED = {"score": {"class_path": "DotProduct", "init_args": {"scale": 1.0}}}
BIASED = {"projection": {"class_path": "MultiHead", "init_args": {"bias": True}}, "output_projection": "BiasedOutput"}
BOTH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no_positions": (make_side(), make_side()),
    "sines": (make_side(embeddings=["EmbeddingScale", SINES]), make_side(embeddings=[SINES])),
    "rotary": (make_side(attend("Rotary")), make_side(attend("Rotary"))),
    "own_bias": (make_side(attend("RelativeBias")), make_side(attend("SharedRelativeBias"))),
    "t5": (
        make_side(attend("SharedRelativeBias", **UNSCALED), feedforward=mlp(TANH, "GatedMLP")),
        make_side(
            attend("SharedRelativeBias", **UNSCALED, dim_head=10),
            feedforward=mlp(TANH, "GatedMLP"),
            cross_attention=attend(**UNSCALED),
            head={"class_path": "TiedHead", "init_args": {"scale": None, "bias": True}},
        ),
    ),
    "post_norm": (
        make_side(attend(**BIASED), norm=LAYER_NORM, placement="PostNorm", embeddings=[LEARNED]),
        make_side(
            attend(**BIASED),
            norm={"class_path": "LayerNorm", "init_args": {"eps": 1e-3}},
            placement="PostNorm",
            feedforward=mlp("SiLU", bias=True),
            embeddings=[LEARNED, {"class_path": "EmbeddingNorm", "init_args": {"norm": LAYER_NORM}}],
        ),
    ),
    "grouped": (
        make_side(attend(kv_heads=2), norm={"class_path": "RMSNorm", "init_args": {"zero_centered": True}}),
        make_side(attend(kv_heads=2), cross_attention=attend(kv_heads=2), feedforward={"class_path": "SwiGLU"}),
    ),
}


@pytest.mark.parametrize("name", BOTH)
def test_c_translate2_computes_the_same(name: str, tmp_path: Path) -> None:
    model, form = export(*BOTH[name]), CTranslate2()
    form.check(model)
    form.write(model, tmp_path)
    found = form.verify(model, tmp_path)
    assert found.difference is not None and found.difference < 1e-4 and found.tokens


@pytest.mark.parametrize("name", ["rotary", "grouped", "sines"])
def test_weights_are_rounded_as_there(name: str, tmp_path: Path) -> None:
    model, form = replace(export(*BOTH[name]), options=ExportOptions(torch.float16, 40)), CTranslate2()
    form.write(model, tmp_path)
    found = form.verify(model, tmp_path)
    assert found.tolerance is not None and found.tolerance < (1e-2 if name == "sines" else 1.1e-4)
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.03)
    with pytest.raises(ValueError, match=r"the log-probabilities of CTranslate2 .* differ"):
        form.verify(model, tmp_path)


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(MisfitError, match=r"pip install 'lightning-xt\[ctranslate2\]'"):
        CTranslate2().check(export(*BOTH["sines"]))


def test_a_wrong_folder_is_found(tmp_path: Path) -> None:
    model, form = export(*BOTH["sines"]), CTranslate2()
    form.write(model, tmp_path)
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match=r"the log-probabilities of CTranslate2 .* differ by .*; nothing was written"):
        form.verify(model, tmp_path)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        ({"attention": attend(qk_norm="RMSNorm")}, {}, "model.encoder.attention.qk_norm is RMSNorm(eps 1e-06"),
        ({"feedforward": mlp("ReLUSquared")}, {}, "feedforward.activation is ReLUSquared instead of ReLU"),
        ({}, {"norm": COARSE}, "model.decoder.norm.eps is 1e-05 instead of 1e-06"),
        ({}, {"cross_attention": attend("Rotary")}, "cross_attention.position is Rotary"),
        ({}, {"attention": attend(kv_heads=2)}, "cross_attention.kv_heads is null, that is 4, instead of 2"),
        ({"attention": attend("Rotary"), "embeddings": [SINES]}, {}, "null, because embeddings has positions too"),
        ({"scale": "LayerScale"}, {}, "model.encoder.scale is LayerScale"),
        ({"norm": FINE_LAYER_NORM, "embeddings": ["EmbeddingNorm"]}, {"norm": FINE_LAYER_NORM},
         "model.encoder.embeddings is rms instead of an EmbeddingNorm like the other norms, layer"),
    ],
)  # fmt: skip
def test_a_part_in_the_way_is_named(encoder: dict[str, Any], decoder: dict[str, Any], message: str) -> None:
    with pytest.raises(MisfitError) as error:
        CTranslate2().check(export(make_side() | encoder, make_side() | decoder))
    assert message in str(error.value) and "or use --format hf-code" in str(error.value)


def test_names_of_tokens_are_different() -> None:
    from lightning_xt.data.tokenizers.numbers import Numbers
    from lightning_xt.data.tokenizers.special_bytes import SpecialBytes

    found = list_token_names(SpecialBytes(), 262)
    assert found[:3] == ["<pad>", "<s>", "</s>"] and found[259:] == ["<unused_259>", "<unused_260>", "<unused_261>"]
    assert len(set(found)) == 262
    assert list_token_names(Numbers(3), 3) == ["0", "1", "2"]
