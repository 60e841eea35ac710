"""Marian: the same model in transformers, both ways."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import PAIR, check_pairs_both_ways, check_same_bits, import_run
from safetensors.torch import load_file, save_file
from transformers import MarianConfig, MarianMTModel

from lightning_xt import Seq2Seq
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.hugging_face import HuggingFace
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.pretrained.marian import Marian, compute_sines
from lightning_xt.exchange.pretrained.shape_choice import fit_shape
from lightning_xt.exchange.templates import fill_template
from lightning_xt.exchange.tensor_rules import FixedTensor

SIZES = {
    **PAIR,
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "max_position_embeddings": 160,
    "forced_eos_token_id": None,
}


def make_model(bias: bool = False, **settings: Any) -> MarianMTModel:
    torch.manual_seed(0)
    model = MarianMTModel(MarianConfig(**SIZES, **settings))
    if bias:
        model.final_logits_bias.normal_()
    return model


@pytest.mark.parametrize(
    ("settings", "bias"),
    [
        ({"activation_function": "swish", "scale_embedding": True}, True),
        pytest.param(
            {"activation_function": "relu", "share_encoder_decoder_embeddings": False}, False, marks=pytest.mark.slow
        ),
        pytest.param(
            {
                "activation_function": "gelu",
                "share_encoder_decoder_embeddings": False,
                "tie_word_embeddings": False,
            },
            True,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["usual", "two_tables", "three_tables"],
)
def test_hf_marian_export(settings: dict[str, Any], bias: bool, tmp_path: Path) -> None:
    exported = check_pairs_both_ways(make_model(bias, **settings), tmp_path)
    check_same_bits(exported, tmp_path / "theirs")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_vocab_size": 62, "share_encoder_decoder_embeddings": False}, "decoder_vocab_size is 62"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False although share_encoder_decoder_embeddings is"),
    ],
)
def test_a_setting_without_counterpart_is_named(
    settings: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model(**settings).save_pretrained(tmp_path / "theirs")
    with pytest.raises(AssertionError):
        import_run(tmp_path / "theirs", tmp_path / "runs")
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_older_folders_hold_tables_that_are_computed_or_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model().save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs/model.safetensors"
    tensors, sines = load_file(file), "model.encoder.embed_positions.weight"
    # Position 2, features 1 and 12 + 1 of 24.
    table = compute_sines(160, 24)
    expected = [torch.sin(torch.tensor(2 * 10_000 ** (-2 / 24))), torch.cos(torch.tensor(2 * 10_000 ** (-2 / 24)))]
    torch.testing.assert_close(table[2, [1, 13]], torch.stack(expected))
    older = {**tensors, sines: table, "lm_head.weight": tensors["model.shared.weight"].clone()}
    save_file(older, file, metadata={"format": "pt"})
    import_run(tmp_path / "theirs", tmp_path / "runs")
    save_file({**older, sines: table.roll(1, 0)}, file, metadata={"format": "pt"})
    with pytest.raises(AssertionError):
        import_run(tmp_path / "theirs", tmp_path / "runs", "other")
    assert f"{sines} differs by 1.98 from the only value that the model can have here" in capsys.readouterr().err


def make_ours(**options: Any) -> ExportedModel:
    """Make a model of the shape here."""
    settings = {
        **{name: value for name, value in SIZES.items() if name in ("d_model",) or name.startswith(("enc", "dec"))},
        "activation_function": "relu",
        "scale_embedding": False,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "logits_bias": False,
    }
    given = fill_template(Marian().template, settings | options)
    vocab = {"source": 259, "target": 259, "pad": 0, "start": 1, "end": 2}
    return ExportedModel("runs/x", Seq2Seq.from_config({**given, "vocab": vocab}), ExportOptions())


def test_models_that_do_not_fit_are_named() -> None:
    untied = make_ours(tie_word_embeddings=False)
    with pytest.raises(
        MisfitError, match=r"decoder.head is UntiedHead instead of TiedHead \(with a shared_embedding\)"
    ):
        HuggingFace().check(untied)
    model = make_ours()
    HuggingFace().check(model)
    sizes = {"vocab_size": 259, "pad": 0, "start": 1, "end": 2}
    model.module.restore_tokenizers({"target": {"class_path": "lightning_xt.Numbers", "init_args": sizes}})
    with pytest.raises(
        MisfitError, match=r"has a tokenizer for sources and another for targets.*shared_tokenizer true"
    ):
        HuggingFace().check(model)


def test_settings_list_the_rules_of_all_tensors() -> None:
    shape, settings = fit_shape(make_ours())
    (bias,) = (each for each in shape.list_rules(settings) if each.theirs == "final_logits_bias")
    assert isinstance(bias, FixedTensor) and bias.value.shape == (1, 259)


def test_a_null_option_agrees_with_the_other_side() -> None:
    config = make_ours().config
    config["encoder"]["init_args"]["feedforward"]["init_args"]["hidden_dim"] = None
    assert not Marian().match(config).mismatches
    config["decoder"]["init_args"]["dim"] = 32
    (found,) = Marian().match(config).mismatches
    assert str(found) == "model.decoder.dim is 32 instead of 24"
