"""Folders that cannot be imported end in one sentence, with nothing written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import SMALL, save_foreign
from refused_imports import check_refused
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_xt.cli import main

Change = Callable[[Path], None]
WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_foreign(LlamaConfig(**{**SMALL, "num_hidden_layers": 1}), LlamaForCausalLM, folder)
    return folder


def set_config(**settings: Any) -> Change:
    def change(folder: Path) -> None:
        known = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**known, **settings}))

    return change


def write(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


def replace_by_link(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def change_tensors(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["model.norm.weight"]
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:, :20].contiguous()
    weights["model.extra"] = torch.zeros(3)
    save_file(weights, folder / WEIGHTS)


def use_integers(folder: Path) -> None:
    save_file({name: each.int() for name, each in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def use_pickles(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def use_pipe(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def write_tokenizer(folder: Path, size: int, *, special: bool = True) -> None:
    words = {"</s>": 0, **{f"w{number}": number for number in range(1, size)}}
    library = Tokenizer(WordLevel(words, unk_token="w1"))
    library.pre_tokenizer = Whitespace()
    if special:
        library.add_special_tokens(["</s>"])
    library.save(str(folder / "tokenizer.json"))


DEEP = "[" * 100_000
MISFIT = (
    "its tensors do not fit: model.norm.weight is missing; model.extra is left over; model.embed_tokens.weight has "
)
CASES: dict[str, tuple[Change, str]] = {
    "tensors": (change_tensors, f"{MISFIT}shape (61, 20) instead of (61, 24)"),
    "integers": (use_integers, "model.embed_tokens.weight holds numbers of type int32"),
    "pickles": (use_pickles, "has its weights in pytorch_model.bin, which is pickled: to load it could run any code"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no model.safetensors, so there are no weights"),
    "cut weights": (lambda folder: os.truncate(folder / WEIGHTS, 99), "model.safetensors cannot be read"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), "has no config.json; give a folder that transformers"),
    "config cut": (write(CONFIG, "{"), "config.json cannot be read"),
    "config deep": (write(CONFIG, DEEP), "config.json cannot be read"),
    "config a list": (write(CONFIG, "[]"), "config.json holds a list, not a mapping; copy the folder again"),
    "unknown type": (set_config(model_type="bert"), "has the model_type 'bert', which has no counterpart here"),
    "no type": (set_config(model_type=["llama"]), "has the model_type ['llama'], which has no counterpart here"),
    "other class": (set_config(architectures=["LlamaForTokenClassification"]), "of Llama only LlamaForCausalLM has a"),
    "vocab a text": (set_config(vocab_size="61"), "vocab_size is '61'; it must be a whole number of at least 1"),
    "vocab negative": (set_config(vocab_size=-1), "vocab_size is -1; it must be a whole number of at least 1"),
    "vocab huge": (set_config(vocab_size=10**12), "vocab_size is 1000000000000, but no tensor of the weights has as"),
    "length a text": (set_config(max_position_embeddings="long"), "max_position_embeddings is 'long'; it must be"),
    "layers huge": (set_config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000, but the weights have 12"),
    "layers negative": (set_config(num_hidden_layers=-2), "is refused here: "),
    "layers a text": (set_config(num_hidden_layers="two"), "is refused here: "),
    "width huge": (set_config(hidden_size=10**15), "decoder has dim 1000000000000000, which must be from 1 to"),
    "width a fraction": (set_config(hidden_size=2.5), "is refused here: "),
    "heads none": (set_config(num_attention_heads=0), "is refused here: "),
    "hidden huge": (set_config(intermediate_size=10**7), "gate_proj.weight has shape (40, 24) instead of (10000000, "),
    "activation": (set_config(hidden_act="tanh"), "hidden_act is 'tanh', but only 'silu' has a counterpart here"),
    "bias a text": (set_config(attention_bias="maybe"), "attention_bias is 'maybe', but only False, True have a count"),
    "rope a list": (set_config(rope_parameters=[1]), "has a setting of another type than that of a Llama"),
    "index malformed": (write(INDEX, '{"weight_map": 3}'), "model.safetensors.index.json is malformed"),
    "index outside": (
        write(INDEX, '{"weight_map": {"x": "../../secret.safetensors"}}'),
        "index.json names ../../secret.safetensors, which is not a file of its folder; copy it there",
    ),
    "index of others": (
        write(INDEX, '{"weight_map": {"x": "w"}}'),
        "index.json names w, which is not a .safetensors file; save the model again",
    ),
    "generation malformed": (write("generation_config.json", "{"), "generation_config.json cannot be read"),
    "link out": (replace_by_link(CONFIG, "/etc/hostname"), "config.json is a link out of its folder, which an import"),
    "link to weights": (replace_by_link(WEIGHTS, "../other.safetensors"), "model.safetensors is a link out of its"),
    "link in a loop": (replace_by_link("tokenizer.json", "tokenizer.json"), "tokenizer.json is a link out of its"),
    "pipe": (use_pipe, "config.json is not a file; copy the folder again"),
    "tokenizer of another": (
        lambda folder: write_tokenizer(folder, 70),
        "tokenizer.json has 70 ids, but the weights have 61: it is the tokenizer of another model",
    ),
    "tokenizer cut": (write("tokenizer.json", "{"), "is not a tokenizer.json of the tokenizers library"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_folder_is_refused(name: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, sentence = CASES[name]
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (tmp_path / "other.safetensors").write_bytes((saved / WEIGHTS).read_bytes())
    change(folder)
    check_refused([str(folder)], sentence, tmp_path, capsys)


def test_weights_larger_than_the_memory_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_xt.exchange.folders.safetensors_files.get_free_memory", lambda: 1000)
    check_refused([str(saved)], "there is not enough memory for weights of 0.0 GB: 0.0 GB are free", tmp_path, capsys)


def test_a_large_text_is_refused(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(saved, tmp_path / "model")
    with (tmp_path / "model" / "tokenizer.json").open("wb") as file:
        # The file has no content on the disk.
        file.truncate(1 << 40)
    sentence = "tokenizer.json has 1099512 MB, and at most 268 are read; copy it again"
    check_refused([str(tmp_path / "model")], sentence, tmp_path, capsys)


def test_files_and_missing_folders_are_refused(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused([str(tmp_path / "nowhere")], "nowhere is not a folder; give one with config.json", tmp_path, capsys)
    sentence = 'the call of their model too: --call "TransformerWrapper(...)"'
    check_refused([str(saved / WEIGHTS)], sentence, tmp_path, capsys)


def test_an_ordinary_end_token_is_special_in_the_run(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code in a folder is not executed either, and links within the cache of the hub are followed."""
    snapshot = tmp_path / "hub" / "snapshots" / "0"
    shutil.copytree(saved, snapshot)
    (snapshot / WEIGHTS).rename(tmp_path / "hub" / "blob")
    (snapshot / WEIGHTS).symlink_to("../../blob")
    (snapshot / "modeling_trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    set_config(eos_token_id=0, auto_map={"AutoModelForCausalLM": "modeling_trap.Trap"})(snapshot)
    write_tokenizer(snapshot, 61, special=False)
    assert main(["import", str(snapshot), "--name", "end", "--output", str(tmp_path / "runs")]) == 0
    assert "</s>, the end token, is an ordinary one in " in capsys.readouterr().out
    run = tmp_path / "runs" / "end" / "0"
    marked = json.loads((run / "text_tokenizer.json").read_text())["added_tokens"]
    assert [(each["id"], each["content"], each["special"]) for each in marked] == [(0, "</s>", True)]
    assert main(["generate", str(run), "--prompt", "w2 w3", "--max_new_tokens", "2"]) == 0
    assert not (tmp_path / "sprung").exists()
