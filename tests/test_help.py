"""Help: the options that people change most, and those of any class at any level."""

import functools
import inspect
from collections.abc import Iterator

import pytest
from jsonargparse import ArgumentParser

import lightning_xt
from lightning_xt.cli import main
from lightning_xt.commands.options.help_text import read_hint
from lightning_xt.commands.options.option_help import OptionHelp, list_class_options
from lightning_xt.commands.trainer.command_line import CommandLine
from lightning_xt.data.base import DataModule
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.system.discovery import find_variants, import_submodules, init_parameters
from lightning_xt.system.messages import UserError
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

GIVEN = ("shape", "vocab", "params", "vocab_size", "self")


@functools.cache
def make_help() -> OptionHelp:
    found: list[ArgumentParser] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandLine, "_print_help", lambda self, args: found.append(self._parser("fit")) or exit(0))
        with pytest.raises(SystemExit):
            CommandLine("fit", [])
    return OptionHelp("fit", "train a model", found[0])


def walk(path: str, kind: type, given: int, seen: set[type]) -> Iterator[tuple[str, type]]:
    """Yield the path of each slot below a class, with the class whose option it is."""
    for name, option in list_class_options(kind, given).items():
        families, given = read_hint(option.annotation)
        if not families or not families[0].__module__.startswith("lightning_xt."):
            continue
        yield f"{path}.{name}", kind
        built = option.default
        if inspect.isclass(built) and built not in seen:
            yield from walk(f"{path}.{name}", built, given, seen | {built})


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_cases_n8_the_help_of_a_command_shows_what_people_change(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 200
    for option in ("model.optimizer.lr", "model.decoder.depth", "model.decoder.attention.heads", "trainer.max_steps",
                   "data.batch_size", "name", "config"):  # fmt: skip
        assert f"  --{option} " in said, option
    assert f"lightning-xt {command} --help_all" in said
    assert f"lightning-xt {command} RUN" in said
    for option in ("init_from", "validate_every", "keep_checkpoints"):
        assert (f"  --{option} " in said) == (command == "fit"), option
    assert (f"lightning-xt {command} --sampling.help" in said) == (command != "fit")


def test_cases_n8_all_options_are_one_flag_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help_all"]) == 0
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in make_help()._actions if name not in ("help", "print_config"))


def test_cases_n8_every_help_works_at_every_level() -> None:
    import_submodules(lightning_xt)
    slots = [(path, kind) for model in (LanguageModel, Seq2Seq) for path, kind in walk("model", model, 0, {model})]
    assert {"model.decoder.attention.position", "model.encoder.attention", "model.decoder.layout"} <= dict(slots).keys()
    for path, owner in slots:
        said = make_help().describe_option(path, None)
        assert said.startswith(f"--{path} takes a "), (path, owner)
        assert not any(f"--{path}.{name} " in said for name in GIVEN), path
        (family, *_), given = read_hint(init_parameters(owner)[path.rpartition(".")[2]].annotation)
        for variant in find_variants(family):
            if variant.__module__.startswith("lightning_xt.") and not variant.__name__.startswith("_"):
                about = make_help().describe_option(path, variant.__name__)
                assert about.startswith(f"{variant.__name__}: "), path
                for name in init_parameters(variant).keys() - set(GIVEN):
                    shown = f"--{path}.{name} " in about
                    assert shown == (name in list_class_options(variant, given)), (path, variant, name)


@pytest.mark.parametrize("section", ["trainer", "sampling", "standard"])
def test_cases_n8_a_section_lists_its_options(section: str) -> None:
    said = make_help().describe_option(section, None)
    names = [name for name in make_help()._actions if name.startswith(f"{section}.") and not name.endswith(".help")]
    assert len(names) > 5
    assert all(f"--{name} " in said for name in names)


def test_cases_n8_by_the_command_line(capsys: pytest.CaptureFixture[str], fresh: object) -> None:
    assert main(["fit", "-c", "tiny.yaml", "--data.help"]) == 0
    said = capsys.readouterr().out
    assert "  TextFiles  " in said and "  --data.path TEXT" in said
    shown = {each.__name__ for each in find_variants(DataModule) if each.__module__.startswith("lightning_xt.data.")}
    assert all(f"  {name}  " in said for name in shown)
    assert main(["fit", "--data.help", "CopyTask"]) == 0
    assert "--data.num_symbols INT" in capsys.readouterr().out
    assert main(["fit", "--model.decoder.attention.position.help=lightning_xt.nn.positions.alibi.ALiBi"]) == 0
    assert "https://arxiv.org/abs/2108.12409" in capsys.readouterr().out
    assert main(["fit", "--trainer.callbacks.help", "EarlyStopping"]) == 0
    assert "  --trainer.callbacks.patience INT" in capsys.readouterr().out
    assert main(["fit", "--trainer.max_steps.help"]) == 0
    assert capsys.readouterr().out.startswith("  --trainer.max_steps INT")


@pytest.mark.parametrize(
    ("path", "name", "sentence"),
    [
        ("model.decoder.atention", None, "--model.decoder.atention: unknown option of Decoder 'atention'; did you "),
        ("modle", None, "unknown option '--modle'; did you mean --model"),
        ("data", "CopyTak", "--data.help: unknown DataModule class 'CopyTak'; did you mean CopyTask?"),
        ("data", "os.system", "--data.help os.system: os.system is not imported"),
        ("data", "torch.nn.Linear", "--data.help: unknown DataModule class 'torch.nn.Linear'; there is "),
    ],
)
def test_cases_n8_a_mistake_is_one_sentence(path: str, name: str | None, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        make_help().describe_option(path, name)
    assert str(error.value).startswith(sentence)


def test_options_of_a_class_besides_the_default_are_described() -> None:
    said = make_help().describe_option("model.optimizer.orthogonalizer", None)
    assert said.startswith("--model.optimizer.orthogonalizer takes a Orthogonalizer class, by default NewtonSchulz")
    assert "\n  PolarExpress  " in said
    said = make_help().describe_option("model.optimizer.momentum", None)
    assert "fraction of the momentum that stays at each step" in said


def test_a_default_class_is_described_with_its_own_options_first() -> None:
    said = make_help().describe_option("data", "TextFiles")
    own = list(inspect.signature(TextFiles.__init__).parameters)[1]
    assert said.index(f"--data.{own} ") < said.index("--data.seq_len ")
