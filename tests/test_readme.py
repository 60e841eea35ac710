"""What the README says is done: every command and every snippet runs, and its tree is the tree.

Fences say how: `bash` runs as it stands, `bash long` runs with a tiny model and two steps, `bash cluster` is only
parsed. Targets of make are looked up, not made: they would make environments within this one.
"""

import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from lightning_xt.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCES = re.findall(r"^```([^\n]*)\n(.*?)^```", README, re.M | re.S)
TINY = {
    "fit": "--trainer.max_steps 2 --model.decoder.dim 16 --model.decoder.depth 2 --data.seq_len 32",
    "generate": "--max_new_tokens 8",
}
# The same of an encoder-decoder.
TINY_PAIRS = {
    "fit": "--trainer.max_steps 2 --model.schedule.warmup_steps 1 --model.encoder.dim 16 --model.encoder.depth 1 "
    "--model.decoder.dim 16 --model.decoder.depth 1",
    "generate": "--max_new_tokens 8",
}


def commands() -> list[tuple[str, list[str]]]:
    """Each command of each shell fence, with how it is to be run."""
    found = []
    for info, text in FENCES:
        if info.split()[:1] == ["bash"]:
            lines = text.replace("\\\n", " ").splitlines()
            found += [(info, shlex.split(line, comments=True)) for line in lines if shlex.split(line, comments=True)]
    return found


# As a user would write it: pairs without end, for GeneratorPairs.
CYCLE = """
import torch

def cycle():
    while True:
        src = torch.randint(2, 18, (4, 6))
        start = torch.ones(4, 1, dtype=torch.long)
        yield src, torch.cat((start, src, src), 1), torch.ones(4, 6, dtype=torch.bool)
"""


def made_tiny(args: list[str]) -> list[str]:
    """Options that make a command short."""
    words = " ".join(args)
    options = (TINY_PAIRS if "translation" in words else TINY).get(args[0], "")
    if args[0] == "fit" and "translation" in words:
        of_symbols = "copy.yaml" in words
        if not of_symbols:
            options += " --data.tokenizer.vocab_size 280"
        elif "GeneratorPairs" not in words:
            options += " --data.validation_size 4 --data.test_size 4"
    return shlex.split(options)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with what the README presupposes: the configs, a corpus and a file of prompts."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.txt").write_text("All happy families are alike. " * 200)
    (tmp_path / "held_out.txt.gz").write_bytes(gzip.compress(b"Every unhappy family is unhappy in its own way. " * 20))
    story = json.dumps({"text": "Everything was in confusion in the house. " * 4})
    (tmp_path / "stories.jsonl").write_text(f"{story}\n" * 40)
    (tmp_path / "prompts.txt").write_text("def\nimport\n")
    (tmp_path / "new.en").write_text("a dog\n\na cat\n")
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    for name in ("train", "val", "test_2016_flickr"):
        for language, lines in (("en", "a dog runs\na cat\n" * 20), ("de", "ein Hund rennt\neine Katze\n" * 20)):
            for file in (tmp_path / "data/multi30k" / f"{name}.{language}", tmp_path / f"{name}.{language}"):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(lines)
    pair = json.dumps({"en": "a dog", "de": "ein Hund"})
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(f"{pair}\n".encode() * 40))
    (tmp_path / "my_task.py").write_text(CYCLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(commands()) > 10
    for info, (program, *args) in commands():
        if info == "bash cluster":
            continue
        if program == "make":
            run = subprocess.run(["make", "-n", *args], cwd=ROOT, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
        elif program == "python":
            run = subprocess.run(
                [sys.executable, ROOT / args[0], "--help"], capture_output=True, text=True, check=False
            )
            assert run.returncode == 0, run.stderr
        else:
            assert program == "lightning-xt"
            assert main([*args, *(made_tiny(args) if info == "bash long" else [])]) == 0, (
                f"{args}: {capfd.readouterr().err}"
            )
    assert len((workspace / "out.jsonl").read_text().splitlines()) == 2
    assert len((workspace / "out.de").read_text().splitlines()) == 3


def of_fit(words: list[str]) -> list[str] | None:
    """The arguments of `fit` in a command that a cluster runs, whoever starts it; None where it is another program."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    program, *args = words
    if program == "torchrun":
        known = get_args_parser().parse_args(args)
        assert known.no_python and known.training_script == "lightning-xt", args
        program, args = known.training_script, known.training_script_args
    if program == "lightning-xt":
        assert args[0] == "fit"
        return args[1:]
    for number, word in enumerate(words):
        if word.startswith("configs/cluster/"):
            assert (ROOT / word).is_file()
            assert word.endswith(".sbatch") == (program == "sbatch"), words
            # What the script adds.
            return [*words[number + 1 :], "--ckpt_path=last", "--trainer.num_nodes=2", "--trainer.devices=8"]
    assert program in ("source", "scancel", "kill"), words
    return None


def test_what_needs_a_cluster_parses(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = [of_fit(words) for info, words in commands() if info == "bash cluster"]
    for args in {tuple(each): None for each in found if each is not None}:
        assert main(["fit", *args, "--print_config"]) == 0, f"{args}: {capfd.readouterr().err}"
        assert "class_path" in capfd.readouterr().out
    assert len(found) > 3


def test_every_snippet_runs(workspace: Path) -> None:
    snippets = [text for info, text in FENCES if info == "python"]
    assert snippets
    for text in snippets:
        exec(compile(text, "README.md", "exec"), {})


def test_every_yaml_parses(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    snippets = [text for info, text in FENCES if info == "yaml"]
    assert snippets
    for number, text in enumerate(snippets):
        file = workspace / f"{number}.yaml"
        file.write_text(text)
        assert main(["fit", "-c", "configs/language/quickstart.yaml", "-c", str(file), "--print_config"]) == 0
        assert "HyperConnection" in capfd.readouterr().out


def test_the_tree_names_every_file() -> None:
    tree = next(text for info, text in FENCES if info == "text")
    within, blocks = "", {}
    for line in tree.splitlines():
        # A line at two or fewer spaces opens a folder of the package, deeper ones belong to it.
        if re.match(r" {0,2}\S", line):
            within = line.split()[0].rstrip("/")
        blocks[within] = blocks.get(within, "") + line + "\n"
    for path in (ROOT / "lightning_xt").rglob("*.py"):
        if path.name not in ("__init__.py", "base.py"):
            top, *rest = path.relative_to(ROOT / "lightning_xt").parts
            words = set(re.findall(r"[\w.]+", blocks.get(top, "")))
            assert {path.name, path.stem} & words, f"{path.relative_to(ROOT)} is not in the README's tree"
            assert set(rest[:-1]) <= words, f"{path.parent.relative_to(ROOT)}/ is not in the README's tree"
    known = {path.stem for folder in ("lightning_xt", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    for name in re.findall(r"\b([a-z_]+)\.py\b", tree):
        assert name in known, f"the README's tree has {name}.py, which is not there"


def test_a_variant_is_one_new_file(tmp_path: Path) -> None:
    """The README's own example, put into a copy of the package, is found by the command line and by the laws."""
    for name in ("lightning_xt", "tests", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "data", "training"))
    for name in ("data", "training"):
        shutil.copytree(ROOT / "lightning_xt" / name, tmp_path / "lightning_xt" / name, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    example = next(text for info, text in FENCES if info == "python variant")
    (tmp_path / "lightning_xt/nn/positions/distance_cost.py").write_text(example)

    laws = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "DistanceCost", "-m", "not slow"]
    run = subprocess.run(
        [*laws, "tests/test_families.py", "tests/test_contracts.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.search(r"(\d+) passed", run.stdout).group(1)) > 15

    fit = "fit -c configs/language/quickstart.yaml --model.decoder.attention.position DistanceCost --print_config"
    run = subprocess.run(
        [sys.executable, "-m", "lightning_xt", *fit.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "lightning_xt.nn.positions.distance_cost.DistanceCost" in run.stdout
