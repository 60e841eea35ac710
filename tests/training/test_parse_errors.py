"""A mistake in a config is explained to Python as to the command line."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_xt.cli import main
from lightning_xt.generation.engine import generate
from lightning_xt.models.decoder import Decoder
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"decoder": {"dim": 64, "dpth": 2}},
        "--model.decoder.dpth 2",
        "--model.decoder: unknown option of Decoder 'dpth'; did you mean depth?",
    ),
    (
        {"decoder": {"attention": {"position": "Alibi"}}},
        "--model.decoder.attention.position Alibi",
        "--model.decoder.attention.position: unknown Position class 'Alibi'; did you mean ALiBi or HardALiBi?",
    ),
    ({"decoder": {"dim": "x"}}, "--model.decoder.dim x", "--model.decoder.dim: expected int, not 'x'"),
    (
        {"decodr": {}},
        "--model.decodr 3",
        "--model: unknown option of LanguageModel 'decodr'; did you mean decoder?",
    ),
    (
        {"decoder": {"atention": {"heads": 2}}},
        "--model.decoder.atention.heads 2",
        "--model.decoder: unknown option of Decoder 'atention'; did you mean attention or cross_attention?",
    ),
    (
        {"decoder": {"attention": {"positon": {"base": 2}}}},
        "--model.decoder.attention.positon.base 2",
        "--model.decoder.attention: unknown option of Attention 'positon'; did you mean position or projection?",
    ),
    (
        {"optmizer": {"lr": 2}},
        "--model.optmizer.lr 2",
        "--model: unknown option of LanguageModel 'optmizer'; did you mean optimizer?",
    ),
    (
        {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": "abc"}}},
        "--model.optimizer.lr abc",
        "--model.optimizer.lr: expected float, not 'abc'",
    ),
    ({"compile": 3}, "--model.compile 3", "--model.compile: expected bool or dict, not '3'"),
    (
        {"decoder": {"norm": "AdaptiveRMSNorm"}},
        "--model.decoder.norm AdaptiveRMSNorm",
        "--model.decoder.norm.condition_dim is required; give it in a config or on the command line",
    ),
    (
        {"decoder": {"position": "ALiBi"}},
        "--model.decoder.position ALiBi",
        "--model.decoder: unknown option of Decoder 'position'; did you mean --model.decoder.attention.position?",
    ),
    (
        {"decoder": {"attention": {"rotary_dim": 2}}},
        "--model.decoder.attention.rotary_dim 2",
        "--model.decoder.attention: unknown option of Attention 'rotary_dim'; did you mean "
        "--model.decoder.attention.position.rotary_dim?",
    ),
    (
        {"decoder": {"feedforward": "torch.nn.Linear"}},
        "--model.decoder.feedforward torch.nn.Linear",
        "--model.decoder.feedforward: torch.nn.Linear is not a subclass of FeedForward; derive your class from it",
    ),
]


@pytest.mark.parametrize(("config", "option", "sentence"), MISTAKES, ids=[option for _, option, _ in MISTAKES])
def test_python_reads_the_sentence_of_the_command_line(config, option, sentence, fresh, capsys) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        LanguageModel.from_config(config)
    assert main(["fit", "-c", "tiny.yaml", *option.split()]) == 2
    assert capsys.readouterr().err == f"lightning-xt: error: {sentence}\n"


@pytest.mark.parametrize("slot", ["decoder", "schedule"])
def test_a_number_is_not_a_class(slot: str) -> None:
    with pytest.raises(ValueError, match=f"^--model.{slot}: expected a class or its options, not '3'$"):
        LanguageModel.from_config({slot: 3})


SMALL = {"dim": 16, "depth": 1}
CALLS = {
    "LanguageModel": lambda **options: LanguageModel.from_config({"decoder": SMALL}).generate("a", **options),
    "Seq2Seq": lambda **options: Seq2Seq.from_config({"encoder": SMALL, "decoder": SMALL}).generate(IDS, **options),
    "generate": lambda **options: generate(Decoder(9, **SMALL), IDS, 3, **options),
}
IDS = torch.ones(1, 2, dtype=torch.long)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("seq_len", "it is called max_new_tokens now"),
        ("length", "it is called max_new_tokens now"),
        ("temprature", "did you mean temperature?"),
    ],
)
def test_an_unknown_option_of_generate_offers_the_right_one(call, name: str, way: str) -> None:
    with pytest.raises(TypeError, match=rf"^generate: unknown option '{name}'; {re.escape(way)}$"):
        call(**{name: 1})


def test_an_unknown_option_of_translate_offers_the_right_one() -> None:
    with pytest.raises(TypeError, match=r"^translate: unknown option 'see'; did you mean seed\?$"):
        Seq2Seq.from_config({"encoder": SMALL, "decoder": SMALL}).translate(["a"], see=1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--lr 0.001", "unknown option '--lr'; did you mean --model.optimizer.lr?"),
        ("--model.lr 1", "--model: unknown option of LanguageModel 'lr'; did you mean --model.optimizer.lr?"),
        ("--model.attention.heads 2", "--model: unknown option of LanguageModel 'attention'; did you mean "
         "--model.decoder.attention.heads?"),
        ("--model.decoder.heads 2", "--model.decoder: unknown option of Decoder 'heads'; did you mean "
         "--model.decoder.attention.heads?"),
        ("--trainer.callbacks+=EarlyStoping", "--trainer.callbacks: unknown Callback class 'EarlyStoping'; did you "
         "mean EarlyStopping"),
        ("--figures Figure", "--figures: unknown Figures class 'Figure'; did you mean Figures?"),
        ("--non_finite Finite", "--non_finite: unknown NonFinite class 'Finite'; did you mean NonFinite?"),
        ("--data.too_long drop", "--data Multi30k or --data ParallelText"),
        ("--data torch.nn.Linear", "--data: torch.nn.Linear is not a subclass of DataModule; derive your class"),
    ],
)  # fmt: skip
def test_cases_n6_the_option_that_was_meant_is_found(flags: str, sentence: str, fresh, capsys) -> None:
    assert main(["fit", "-c", "tiny.yaml", *flags.split()]) == 2
    assert sentence in capsys.readouterr().err


def test_cases_n7_a_plain_module_or_function_says_what_is_missing(fresh, capsys, monkeypatch) -> None:
    (fresh / "plain.py").write_text(
        "from torch import nn\n"
        "class Plain(nn.Module):\n"
        "    pass\n"
        "def make(shape):\n"
        "    return Plain()\n"
    )  # fmt: skip
    monkeypatch.delitem(sys.modules, "plain", raising=False)
    for name, sentence in (
        ("plain.Plain", "plain.Plain is not a subclass of FeedForward; derive your class from it"),
        ("plain.make", "the function plain.make does not say that it returns a FeedForward; annotate it, as in "
         "def make(...) -> FeedForward"),
    ):  # fmt: skip
        assert main(["fit", "-c", "tiny.yaml", "--model.decoder.feedforward", name]) == 2
        assert capsys.readouterr().err == f"lightning-xt: error: --model.decoder.feedforward: {sentence}\n"


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("AdaptiveRMSNorm", ["norm", "AdaptiveRMSNorm", "norm.condition_dim", "3"]),
        ("TypeEmbedding", ["embeddings+", "TypeEmbedding"]),
        ("GivenContext", ["dim", "16", "context", "GivenContext"]),
    ],
)
def test_cases_p7_a_part_that_no_data_serve_is_refused_before_training(part, options, fresh, capsys):
    given = [f"--model.decoder.{name}={value}" for name, value in zip(options[::2], options[1::2], strict=True)]
    assert main(["fit", "-c", "tiny.yaml", *given]) == 2
    said = capsys.readouterr().err
    assert f"--model: {part} needs the input " in said and said.count("\n") == 1
    assert "which these data do not give; choose another part, or bring it with --data CustomData and --data" in said
    assert not Path("runs").exists()


def test_a_slot_of_a_list_shows_how_to_write_one(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--model.decoder.links", "UNetSkips"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "lightning-xt: error: --model.decoder.links: expected a list, such as [UNetSkips], not 'UNetSkips'\n"
    )
