"""Whole architectures: each builds after a recipe, learns, states its source, and has the published size."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_configs import CONFIGS, QUICKSTART, TINY, TINY_PAIRS, merge

from lightning_xt.cli import main
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.seq2seq import Seq2Seq

FILES = sorted((CONFIGS / "architectures").glob("*.yaml"))
RECIPES = sorted(file for file in (CONFIGS / "language").glob("*.yaml") if file.stem != "masked")
COPY = CONFIGS / "translation" / "copy.yaml"
SIZES: dict[str, tuple[int, dict[str, Any], int]] = {
    "gpt2": (50_257, {"dim": 768, "depth": 12, "attention": {"heads": 12}}, 124_439_808),
    "llama3": (
        128_256,
        {
            "dim": 4096,
            "depth": 32,
            "attention": {"heads": 32, "kv_heads": 8},
            "feedforward": {"hidden_dim": 14_336},
        },
        8_030_261_248,
    ),
}
"""Vocabulary and sizes of an original, and its published number of parameters."""


def read(file: Path) -> dict[str, Any]:
    """Return the options of a model in a config."""
    return yaml.safe_load(file.read_text())["model"]["init_args"]


def is_pair(file: Path) -> bool:
    """Return True for an encoder-decoder."""
    return "encoder" in read(file)


def build(file: Path) -> TransformerModule:
    """Build an architecture after a recipe."""
    if is_pair(file):
        return Seq2Seq.from_config(merge(read(COPY), read(file)))
    return LanguageModel.from_config(merge(read(QUICKSTART), read(file)))


def draw_loss(module: TransformerModule) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    src, tgt = (torch.randint(3, 19, (2, n), generator=generator) for n in (17, 13))
    return module(src, tgt) if isinstance(module, Seq2Seq) else module(src)


def resize(options: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return options with other sizes, which stand in the options of their class."""
    changed = dict(options)
    for name, value in sizes.items():
        before = changed.get(name)
        if not isinstance(value, dict):
            changed[name] = value
        elif isinstance(before, dict) and "class_path" in before:
            changed[name] = {**before, "init_args": resize(before.get("init_args", {}), value)}
        elif isinstance(before, str):
            changed[name] = {"class_path": before, "init_args": value}
        else:
            changed[name] = resize(before or {}, value)
    return changed


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_architecture_is_small_and_takes_a_step(file: Path) -> None:
    module = build(file)
    assert 0.4e6 < count(module) < 2e6
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    module.eval()
    before = draw_loss(module)
    before.backward()
    optimizer.step()
    assert 0 < before.item() < 30
    assert draw_loss(module) < before


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_architecture_states_its_source_sizes_and_differences(file: Path) -> None:
    lines = file.read_text().split("model:")[0].splitlines()
    assert all(line.startswith("# ") and len(line) <= 120 for line in lines)
    assert lines[0].endswith(".") and ": " in lines[0]
    words = [line.removeprefix("# ").split(":")[0].split()[0] for line in lines[1:] if not line.startswith("#   ")]
    assert words == ["Source", "Sizes", "Differences"]
    assert re.search(r"https://(arxiv\.org/abs/\d{4}\.\d{4,5}|github\.com/|aclanthology\.org/)", file.read_text())
    # The model's part only, so that any recipe can be its base.
    assert list(yaml.safe_load(file.read_text())) == ["model"]


@pytest.mark.parametrize("name", SIZES)
def test_an_original_has_its_published_number_of_parameters(name: str) -> None:
    vocabulary, sizes, published = SIZES[name]
    file = CONFIGS / "architectures" / f"{name}.yaml"
    assert f"{published:,} parameters" in file.read_text()
    options = {"decoder": resize(read(file)["decoder"], sizes), "vocab": {"source": vocabulary, "target": vocabulary}}
    with torch.device("meta"):
        module = LanguageModel.from_config(options)
    assert count(module) == published


LANGUAGE = [file for file in FILES if not is_pair(file)]


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=() if file.stem == "gpt2" else pytest.mark.slow) for file in LANGUAGE],
)
def test_an_architecture_is_the_same_after_every_recipe(file: Path, capsys) -> None:
    made = []
    for recipe in RECIPES:
        assert main(["fit", "-c", str(recipe), "-c", f"architectures/{file.name}", "--print_config"]) == 0
        made.append(yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["decoder"]["init_args"])
        # The recipe's, which fits its text.
        made[-1].pop("dropout")
    assert all(each == made[0] for each in made[1:])


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=() if file.stem == "llama3" else pytest.mark.slow) for file in FILES],
)
def test_the_command_trains_an_architecture_by_its_name(file: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    (tmp_path / "tiny.yaml").write_text(TINY_PAIRS if is_pair(file) else TINY)
    recipe = COPY if is_pair(file) else QUICKSTART
    options = ["fit", "-c", str(recipe), "-c", "tiny.yaml", "-c", f"architectures/{file.name}"]
    assert main([*options, *(["--data.validation_size=4"] if is_pair(file) else [])]) == 0
    assert any(line.startswith("val/loss=") for line in capsys.readouterr().out.splitlines())
