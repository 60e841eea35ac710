"""The parser of configs: each nested class once, null in each slot, no abbreviations."""

import importlib
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import LightningModule

import lightning_xt
from lightning_xt.cli import main
from lightning_xt.commands.trainer.command_line import CommandLine
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.discovery import import_submodules
from lightning_xt.training.config_parser import ConfigParser
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.option_values import _takes_none
from lightning_xt.training.seq2seq import Seq2Seq

import_submodules(lightning_xt)
MODELS = {"LanguageModel": LanguageModel, "Seq2Seq": Seq2Seq}


def make_parser(kind: type[ArgumentParser]) -> Any:
    parser = kind(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", skip={"vocab"})
    return parser


def plain(parser: Any, args: list[str]) -> dict[str, Any]:
    return parser.parse_args(args).model.as_dict()


def find_nullable(options: dict[str, Any], slot: str = "") -> Iterator[str]:
    """Yield the options of a class, and of the classes in it, that may be null."""
    module, _, name = options["class_path"].rpartition(".")
    hints = typing.get_type_hints(getattr(importlib.import_module(module), name).__init__)
    for option, value in options.get("init_args", {}).items():
        if option in hints and _takes_none(hints[option]):
            yield f"{slot}{option}"
        if isinstance(value, dict) and "class_path" in value:
            yield from find_nullable(value, f"{slot}{option}.")


def at(options: dict[str, Any], slot: str) -> Any:
    for name in slot.split("."):
        options = options["init_args"][name]
    return options


@pytest.mark.parametrize("model", MODELS)
def test_null_on_the_command_line_is_null_in_every_slot(model):
    parser = make_parser(ConfigParser)
    slots = list(find_nullable(plain(parser, ["--model", model])))
    assert len(slots) == {"LanguageModel": 28, "Seq2Seq": 46}[model]
    assert any(slot.count(".") == 3 for slot in slots)
    parts = {slot.rpartition(".")[0] for slot in slots}
    for some in ([slot for slot in slots if slot not in parts], [slot for slot in slots if slot in parts]):
        options = plain(parser, ["--model", model, *(f"--model.{slot}=null" for slot in some)])
        assert {slot: at(options, slot) for slot in some} == dict.fromkeys(some)


def test_what_is_set_to_null_can_be_set_again():
    slot = "--model.decoder.attention.position"
    options = plain(make_parser(ConfigParser), ["--model", "LanguageModel", slot, "null", slot, "ALiBi"])
    assert at(options, "decoder.attention.position")["class_path"].endswith("ALiBi")


@pytest.mark.parametrize("args", [["--model.decoder.attention.position", "ALiBi", "--model.decoder.depth", "3"]])
@pytest.mark.parametrize("model", ["LanguageModel"])
def test_it_parses_as_its_base_does(model, args):
    args = ["--model", model, *args]
    assert plain(make_parser(ConfigParser), args) == plain(make_parser(ArgumentParser), args)


def test_it_parses_each_nested_class_a_few_times_only(monkeypatch):
    original, calls = ArgumentParser.validate, dict.fromkeys((ArgumentParser, ConfigParser), 0)

    def validate(parser, *args, **options):
        calls[type(parser)] += 1
        return original(parser, *args, **options)

    monkeypatch.setattr(ArgumentParser, "validate", validate)
    for kind in calls:
        plain(make_parser(kind), ["--model", "LanguageModel"])
    assert calls[ConfigParser] < calls[ArgumentParser] / 5


def test_a_second_parse_knows_nothing_of_the_first():
    parser = make_parser(ConfigParser)
    slot = "--model.decoder.attention.position"
    with pytest.raises(ArgumentError, match="BornLater"):
        plain(parser, ["--model", "LanguageModel", slot, "BornLater"])

    class BornLater(Position):
        """Position that is defined after the first parse."""

    found = plain(parser, ["--model", "LanguageModel", slot, f"{__name__}.Position"])
    assert at(found, "decoder.attention.position")["class_path"] == "lightning_xt.nn.positions.base.Position"
    first = plain(parser, ["--model", "LanguageModel"])
    at(first, "decoder.attention")["init_args"]["heads"] = 99
    assert at(plain(parser, ["--model", "LanguageModel"]), "decoder.attention.heads") != 99


@pytest.mark.parametrize("args", [["--mod", "LanguageModel"], ["--model.decoder.dept", "3"]])
def test_it_knows_no_abbreviations(args):
    with pytest.raises(ArgumentError, match=r"unrecognized arguments|not accepted"):
        plain(make_parser(ConfigParser), ["--model", "LanguageModel", *args])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer:\n", "over.yaml: trainer is empty; give it a value, or remove it"),
        ("data:\n", "over.yaml: data is empty"),
        ("sampling:\n", "over.yaml: sampling is empty"),
        ("standard:\n", "over.yaml: standard is empty"),
        ("model: {init_args: }", "over.yaml: init_args is empty"),
        ("model: {init_args: {optimizer: {class_path: }}}", "over.yaml: class_path is empty"),
        ("trainer: {max_steps: }", "--trainer.max_steps is null, but it needs a value; give one, or omit the option"),
        ("trainer: {accumulate_grad_batches: }", "--trainer.accumulate_grad_batches is null, but"),
        ("trainer: {strategy: }", "--trainer.strategy is null, but"),
        ("sampling: {seed: }", "--sampling.seed is null, but"),
        ("keep_checkpoints:\n", "--keep_checkpoints is null, but"),
        ("model: {init_args: {decoder: {attention: {heads: }}}}", "--model.decoder.attention.heads is null, but"),
        ("sample_text: {generation: }", "--sample_text.generation is null, but SampleText needs"),
        ("sample_text: {generation: {seed: }}", "--sample_text.generation.seed is null, but GenerationOptions needs"),
    ],
)
def test_cases_r11_needs_a_value(text: str, said: str, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("over.yaml").write_text(text)
    assert main(["fit", "-c", "tiny.yaml", "-c", "over.yaml"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


def test_cases_r11_null_switches_off_what_may_be_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["sample_text:", "non_finite:", "inference:", "standard: {throughput: }", "validate_every:", "name:"]
    Path("over.yaml").write_text("\n".join([*texts, "trainer: {callbacks: , profiler: , max_epochs: }"]))
    ran: list[str] = []
    monkeypatch.setattr(CommandLine, "_run_subcommand", lambda self, name: ran.append(name))
    assert main(["fit", "-c", "tiny.yaml", "-c", "over.yaml"]) == 0
    assert ran == ["fit"]


def test_cases_r18_options_under_the_name_of_a_command(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("over.yaml").write_text("fit: {trainer: {max_steps: 3}}")
    assert main(["fit", "-c", "tiny.yaml", "-c", "over.yaml"]) == 2
    assert "over.yaml: its options stand under fit:, where only configs of several" in capsys.readouterr().err


@pytest.mark.parametrize("section", ["sampling", "standard"])
def test_cases_r11_flags_too(section: str, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "tiny.yaml", f"--{section}", "null"]) == 2
    assert f"--{section}" in capsys.readouterr().err


def test_null_in_a_list_of_classes_stays_null():
    shifts = {"class_path": "ShiftCycle", "init_args": {"shifts": ["TokenShift", None]}}
    # The tests make warnings errors; users do not.
    with warnings.catch_warnings(action="ignore"):
        model = LanguageModel.from_config({"decoder": {"dim": 24, "depth": 2, "shift": shifts}})
    found = model.hparams["decoder"]["init_args"]["shift"]["init_args"]["shifts"]
    assert found[0]["class_path"] == "lightning_xt.TokenShift"
    assert found[1] is None
