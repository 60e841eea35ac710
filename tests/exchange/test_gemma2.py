"""Gemma 2: the same model in transformers, both ways."""

from pathlib import Path

import pytest
from architecture_exports import check_architecture
from foreign_models import SMALL, check_both_ways, import_run, save_foreign
from transformers import Gemma2Config, Gemma2ForCausalLM

from lightning_xt.exchange.pretrained.gemma2 import Gemma2
from lightning_xt.exchange.templates import fill_template

ROOT = "the inverse root of a whole number"


def make_config(**settings: object) -> Gemma2Config:
    own = {"head_dim": 10, "query_pre_attn_scalar": 7, "sliding_window": 5, "attn_implementation": "eager"}
    return Gemma2Config(**{**SMALL, **own, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        pytest.param(
            {
                "attn_logit_softcapping": None,
                "final_logit_softcapping": None,
                "attention_bias": True,
                "query_pre_attn_scalar": 10,
                "hidden_activation": "gelu",
                "layer_types": ["full_attention"] * 3,
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"tie_word_embeddings": False, "layer_types": ["sliding_attention"] * 3, "hidden_activation": "silu"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "uncapped", "untied"],
)
def test_hf_gemma2_export(settings: dict[str, object], tmp_path: Path) -> None:
    check_both_ways(make_config(**settings), Gemma2ForCausalLM, tmp_path)


def test_the_architecture_of_gemma2_becomes_one(tmp_path: Path) -> None:
    check_architecture("gemma2", tmp_path / "ours")


def test_a_scale_that_gemma2_cannot_state_is_named() -> None:
    shape = Gemma2()
    settings = shape.read_config({**SMALL, "head_dim": 10, "query_pre_attn_scalar": 7})
    for scale, problem in (
        (7**-0.5, None),
        (None, None),
        (0.3, "model.decoder.attention.score.scale is 0.3 instead of "),
        (1.5, "model.decoder.attention.score.scale is 1.5 instead of "),
        (0.0, "model.decoder.attention.score.scale is 0.0 instead of "),
    ):
        config = fill_template(shape.template, {**settings, "score_scale": scale})
        found = shape.match(config)
        assert [str(each) for each in found.mismatches] == ([] if problem is None else [f"{problem}{ROOT}"])
    assert (
        shape.write_config(shape.match(fill_template(shape.template, settings)).settings)["query_pre_attn_scalar"] == 7
    )


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"layer_types": ["full_attention", "full_attention", "sliding_attention"]}, "layer_types is ['full_attention"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True, but decoders here look back"),
        ({"sliding_window": None}, "sliding_window is None, but layer_types has sliding_attention"),
    ],
)
def test_settings_without_counterpart_are_named(
    settings: dict[str, object], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_foreign(make_config(**settings), Gemma2ForCausalLM, tmp_path / "theirs")
    with pytest.raises(AssertionError):
        import_run(tmp_path / "theirs", tmp_path / "runs")
    assert f"is a Gemma 2 that has no counterpart here: {rule}" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
