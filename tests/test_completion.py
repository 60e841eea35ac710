"""completion: candidates by command line, in bash, zsh and fish."""

import functools
import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_xt.cli import main
from lightning_xt.commands.shell import table_cache
from lightning_xt.commands.shell.candidates import find_candidates, split_words
from lightning_xt.commands.shell.table import build_table

ROOT = Path(__file__).parents[1]
LIMIT = 0.35
"""Seconds of CPU for the candidates of a word, so that they are there within half a second."""


@functools.cache
def make_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(json.dumps(build_table()))
    return table


def complete(line: str) -> list[str]:
    return [name for name, _ in find_candidates(split_words(line), make_table())]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the command lightning-xt, which finds the table."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("lightning_xt.commands.shell.table.build_table", make_table)
    table_cache.refresh()
    command = tmp_path / "bin/lightning-xt"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m lightning_xt "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask_bash(line: str) -> list[str]:
    script = """eval "$(lightning-xt completion bash)"
    compopt() { :; }
    COMP_LINE=$1 COMP_POINT=${#1}
    _lightning_xt lightning-xt
    printf '%s\\n' "${COMPREPLY[@]}\""""
    return run_shell("bash", "--norc", "-c", script, "bash", line)


def ask_zsh(line: str) -> list[str]:
    script = """compdef() { :; }
    eval "$(lightning-xt completion zsh)"
    _describe() { print -rl -- "${(@P)2%%:*}"; }
    _files() { :; }
    words=("${(@s: :)1}") CURRENT=$#words PREFIX=$words[-1]
    _lightning_xt"""
    return run_shell("zsh", "-f", "-c", script, "zsh", line)


def ask_fish(line: str) -> list[str]:
    script = "lightning-xt completion fish | source; complete -C $argv[1]"
    return [word.partition("\t")[0] for word in run_shell("fish", "--no-config", "-c", script, line)]


def run_shell(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("ask", [ask_bash, ask_zsh, ask_fish], ids=["bash", "zsh", "fish"])
def test_shells_complete(ask: Any, installed: Path, request: pytest.FixtureRequest) -> None:
    shell = request.node.callspec.id
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert ask("lightning-xt ge") == ["generate"]
    assert "language/quickstart.yaml" in ask("lightning-xt fit -c language/")
    assert ask("lightning-xt fit --model.decoder.attention.position AL") == ["ALiBi"]
    value = ask("lightning-xt fit --model.decoder.attention.position=AL")
    # bash counts what follows = as a word.
    assert value == ["ALiBi" if shell == "bash" else "--model.decoder.attention.position=ALiBi"]
    assert set(ask("lightning-xt fit --model.decoder.attention.posi")) == {
        "--model.decoder.attention.position", "--model.decoder.attention.position."}  # fmt: skip
    (installed / "runs/my run/0/checkpoints").mkdir(parents=True)
    (found,) = [each for each in ask("lightning-xt info r") if "my" in each]
    assert found in ("runs/my run", "runs/my\\ run")
    assert ask("lightning-xt info runs/m") == [found]


def test_a_candidate_takes_a_fraction_of_a_second(installed: Path) -> None:
    times = []
    for _ in range(3):
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        done = subprocess.run(
            ["lightning-xt", "completion", "bash", "--line=lightning-xt fit -c language/quickstart.yaml --model.dec"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        times.append(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before)
        assert done.stdout.split() == ["--model.decoder", "--model.decoder."]
    assert min(times) < LIMIT


def test_nothing_that_takes_time_is_imported(installed: Path) -> None:
    script = """import sys
from lightning_xt.cli import main
main(["completion", "bash", "--line=lightning-xt fit -c language/quickstart.yaml --model.decoder.attention.position A"])
print(sorted({"torch", "lightning", "jsonargparse", "numpy"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["ALiBi", "[]"]


def test_commands_and_options() -> None:
    assert {"fit", "generate", "completion"} <= set(complete("lightning-xt "))
    assert complete("lightning-xt --v") == ["--version"]
    assert "--tree" in complete("lightning-xt info --")
    assert complete("lightning-xt schema --command pre") == ["predict"]
    assert complete("lightning-xt completion ") == ["bash", "zsh", "fish"]
    assert "Differential" in complete("lightning-xt variants D")
    assert complete("lightning-xt variants ALiBi Latent --j") == ["--json"]
    assert complete("lightning-xt fit --resu") == ["--resume"]
    assert complete("lightning-xt validate --resu") == []
    assert complete("lightning-xt fit --sampl") == ["--sample_text", "--sample_text."]
    assert complete("lightning-xt predict --sampl") == ["--sampling."]
    # A command with options besides those of fit.
    assert complete("lightning-xt lr --low") == ["--lowest"]
    assert complete("lightning-xt validate ") and not {"tiny", "runs/tiny"} & {*complete("lightning-xt lr ")}
    assert complete("lightning-xt lr --model.decoder.dep") == ["--model.decoder.depth"]
    assert complete("lightning-xt generate --temp") == ["--temperature"]
    assert complete("lightning-xt nonsense --model ") == []
    assert complete('lightning-xt fit --name "my') == []


def test_options_are_completed_level_by_level() -> None:
    assert complete("lightning-xt fit --train") == ["--trainer."]
    assert "--trainer.max_steps" in complete("lightning-xt fit --trainer.")
    found = complete("lightning-xt fit --model.decoder.")
    assert {"--model.decoder.dim", "--model.decoder.attention", "--model.decoder.help"} <= set(found)
    assert not any(name.startswith("--model.decoder.attention.") for name in found)
    assert "--model.decoder.attention.heads" in complete("lightning-xt fit --model.decoder.attention.h")
    assert complete("lightning-xt fit --model.nothing.") == []


def test_values_of_options() -> None:
    assert complete("lightning-xt fit --data.order ") == ["random", "shuffled", "lanes"]
    assert complete("lightning-xt fit --trainer.precision bf16-m") == ["bf16-mixed"]
    assert complete("lightning-xt fit --model.compile ") == ["true", "false"]
    assert "null" in complete("lightning-xt fit --model.decoder.attention.position ")
    assert "null" not in complete("lightning-xt fit --model.decoder.attention.position.help ")
    assert complete("lightning-xt fit --model.init_args.decoder.init_args.attention.init_args.position FI") == ["FIRE"]
    assert {"best", "last"} <= set(complete("lightning-xt validate --ckpt_path "))


def test_options_are_those_of_the_class_in_the_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    position = "--model.decoder.attention.position"
    assert f"{position}.base" in complete(f"lightning-xt fit {position}.")
    given = complete(f"lightning-xt fit {position} ALiBi {position}.")
    assert f"{position}.biased_heads" in given and f"{position}.base" not in given
    assert given == complete(f"lightning-xt fit {position}=lightning_xt.ALiBi {position}.")
    assert given == complete(f"lightning-xt fit -c variants/alibi.yaml {position}.")
    assert complete("lightning-xt fit --model.encoder.d") == []
    assert "--model.encoder.depth" in complete("lightning-xt fit -c translation/copy.yaml --model.encoder.d")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs/a/0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("model: {class_path: lightning_xt.Seq2Seq}")
    assert "--model.encoder.depth" in complete("lightning-xt validate runs/a --model.encoder.d")
    (run / "config.yaml").write_text("model: {")
    assert complete("lightning-xt validate runs/a --model.encoder.d") == []


def test_configs_runs_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (0, 1, 10):
        (tmp_path / f"runs/a/{number}/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/a/0/checkpoints/best.ckpt").touch()
    (tmp_path / "runs/a/2").mkdir()
    (tmp_path / "runs/empty/0").mkdir(parents=True)
    for name in ("mine.yaml", "note.txt", "old.ckpt", ".hidden.yaml"):
        (tmp_path / name).touch()
    assert complete("lightning-xt info r") == ["runs/a", "runs/"]
    assert complete("lightning-xt info runs/a/1") == ["runs/a/1", "runs/a/10"]
    assert complete("lightning-xt info runs/") == ["runs/a"]
    assert complete("lightning-xt info runs/a/0/") == ["runs/a/0/checkpoints/"]
    assert complete("lightning-xt info runs/a/0/checkpoints/b") == ["runs/a/0/checkpoints/best.ckpt"]
    assert complete("lightning-xt fit --init_from o") == ["old.ckpt"]
    assert complete("lightning-xt generate ru") == ["runs/a", "runs/"]
    found = complete("lightning-xt fit -c ")
    assert "mine.yaml" in found and "language/quickstart.yaml" in found
    assert not {"note.txt", ".hidden.yaml"} & set(found)
    assert complete("lightning-xt fit --config=variants/ali") == ["--config=variants/alibi.yaml"]
    assert complete("lightning-xt info nowhere/") == []


def test_without_a_table_commands_and_places_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: started.append(command))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["completion", "bash", "--line=lightning-xt gen"]) == 0
    assert main(["completion", "bash", "--line=lightning-xt fit -c language/quick"]) == 0
    assert main(["completion", "bash", "--line=lightning-xt fit --model.dec"]) == 0
    # Lines without a word to complete.
    assert main(["completion", "bash", "--line=lightning-xt"]) == 0
    assert main(["completion", "bash", "--line="]) == 0
    assert capsys.readouterr().out.split() == ["generate", "language/quickstart.yaml"]
    # One process builds the table, however often one is asked.
    assert len(started) == 1
    (mark,) = tmp_path.glob("lightning-xt/*.building")
    os.utime(mark, (0, 0))
    assert main(["completion", "fish"]) == 0
    assert len(started) == 2
    assert "complete -c lightning-xt" in capsys.readouterr().out


def test_the_table_is_built_again_for_another_package(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: started.append(command))
    assert table_cache.load() is not None
    assert not started
    monkeypatch.setattr("lightning_xt.__version__", "99")
    # The table before is used meanwhile.
    assert table_cache.load() is not None
    assert len(started) == 1
    assert main(["completion", "bash", "--refresh"]) == 0
    assert table_cache.load() is not None
    assert len(started) == 1


def test_descriptions_are_short(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh", "--line=lightning-xt fit --model.decoder.attention.position "]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert all(re.fullmatch(r"\w+(\t.{1,90})?", line) for line in lines)
    assert main(["completion", "csh"]) == 2
