"""A mistake in a config is explained to Python as to the command line."""

import re
from typing import Any

import pytest

from lightning_xt.cli import main
from lightning_xt.training.language_model import LanguageModel

MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"decoder": {"dim": 64, "dpth": 2}},
        "--model.decoder.dpth 2",
        "--model.decoder: unknown option of Decoder 'dpth'; did you mean depth?",
    ),
    (
        {"decoder": {"attention": {"position": "Alibi"}}},
        "--model.decoder.attention.position Alibi",
        "--model.decoder.attention.position: unknown Position class 'Alibi'; did you mean ALiBi?",
    ),
    ({"decoder": {"dim": "x"}}, "--model.decoder.dim x", "--model.decoder.dim: expected int, not 'x'"),
    (
        {"decodr": {}},
        "--model.decodr 3",
        "--model: unknown option of LanguageModel 'decodr'; did you mean decoder?",
    ),
    ({"compile": 3}, "--model.compile 3", "--model.compile: expected bool or dict, not '3'"),
    (
        {"decoder": {"norm": "AdaptiveRMSNorm"}},
        "--model.decoder.norm AdaptiveRMSNorm",
        "--model.decoder.norm.condition_dim is required; give it in a config or on the command line",
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
