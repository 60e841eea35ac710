"""Data that bring inputs of a network besides ids: conditions, types and contexts."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_run import load_weights, read_rows

from lightning_xt.cli import main
from lightning_xt.training.batches import read_inputs

MINE = '''
import torch
from torch.utils.data import Dataset


class Rows(Dataset):
    """Rows of ids, of pairs if wanted, with the named inputs."""

    def __init__(self, names: str, pairs: bool = False) -> None:
        self.names, self.pairs = names.split(), pairs

    def __len__(self):
        return 8

    def __getitem__(self, number):
        row = (torch.arange(7) * (number + 1)) % 9 + 2
        target = torch.cat([torch.ones(1, dtype=torch.long), row[1:]])
        inputs = {"condition": torch.tensor([1.0, number]), "types": torch.arange(7) % 2, "context": torch.ones(3, 5)}
        inputs["context_mask"] = torch.arange(3) < 2
        ids = {"src": row, "tgt": target} if self.pairs else {"tokens": row}
        return ids | {name: inputs[name] for name in self.names}
'''
PARTS = {
    "condition": {"norm": {"class_path": "AdaptiveRMSNorm", "init_args": {"condition_dim": 2}}},
    "types": {"embeddings": ["TypeEmbedding"]},
    "context context_mask": {"context": {"class_path": "GivenContext", "init_args": {"dim": 5}}},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "given_inputs.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "given_inputs", raising=False)


def write(names: str, part: dict, pairs: bool = False, **options) -> None:
    rows = {"class_path": "given_inputs.Rows", "init_args": {"names": names, "pairs": pairs}}
    sizes = {"dim": 16, "depth": 1, "attention": {"heads": 2}, **part}
    special = {"source": 11, "pad": 0, "start": 1} if pairs else {}
    network = {"encoder": {**sizes, "embeddings": []}, "decoder": sizes} if pairs else {"decoder": sizes}
    data = {"train_set": rows, "validation_set": rows, "vocab": {"target": 11, **special}, "batch_size": 4}
    config = {
        "data": {"class_path": "CustomData", "init_args": {**data, "inputs": names.split(), **options}},
        "model": {"class_path": "Seq2Seq" if pairs else "LanguageModel", "init_args": {**network, "schedule": None}},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1},
    }
    config["trainer"]["enable_progress_bar"] = False
    Path("mine.yaml").write_text(yaml.safe_dump(config))


# The context of an encoder-decoder is its encoder.
@pytest.mark.parametrize(
    ("names", "pairs"), [(names, pairs) for names in PARTS for pairs in (False, True)[: 1 + ("context" not in names)]]
)
def test_a_part_that_needs_an_input_trains_from_the_command_line(names, pairs, capsys, caplog):
    write(names, PARTS[names], pairs)
    assert main(["fit", "-c", "mine.yaml"]) == 0
    said = capsys.readouterr()
    assert f"needs the input {names.split()[0]}, which prompts lack" in said.out + said.err + caplog.text
    assert "lightning-xt generate" not in said.out
    assert float(read_rows("runs/mine/0")[-1]["val/loss"]) > 0
    weights = load_weights("runs/mine/0")
    learned = [name for name in weights if "to_gain" in name or "embeddings.0.table" in name or "to_kv" in name]
    assert learned and all(weights[name].abs().max() > 0 for name in learned)
    assert main(["validate", "runs/mine"]) == 0


@pytest.mark.parametrize(
    ("given", "named", "sentence"),
    [
        (
            "types",
            "types condition",
            "a batch is a dict of tokens, types, but --data.inputs names types, condition; items",
        ),
        (
            "types condition",
            "types",
            "a batch is a dict of tokens, types, condition, but --data.inputs names types; items",
        ),
        (
            "types",
            "",
            "a batch is a dict of tokens, types, but --data.inputs names nothing; items must be dicts of ids",
        ),
    ],
)
def test_items_with_other_inputs_than_named_are_refused(given, named, sentence, capsys):
    parts = {slot: value for name in named.split() for slot, value in PARTS[name].items()}
    write(given, parts, inputs=named.split())
    assert main(["fit", "-c", "mine.yaml"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("given", "read"), [("condition", ""), ("types", "condition"), ("context_mask", "types")])
def test_an_input_that_no_part_reads_is_refused(given, read, capsys):
    names = f"{read} {given}".split()
    write(" ".join(names), PARTS[read] if read else {})
    assert main(["fit", "-c", "mine.yaml"]) == 2
    assert f"--data.inputs names {given}, but no part of the network reads it; choose a" in capsys.readouterr().err


def test_inputs_of_the_token_that_is_not_read_are_dropped():
    ids, each = torch.zeros(2, 5, dtype=torch.long), torch.arange(5).expand(2, -1)
    for first, kept in ((0, [0, 1, 2, 3]), (1, [1, 2, 3, 4])):
        found, inputs = read_inputs(
            {"tokens": ids, "types": each, "condition": each[..., None].float()}, ["types", "condition"], first
        )
        assert found is ids
        assert inputs.types[0].tolist() == inputs.condition[0, :, 0].tolist() == kept
    _, inputs = read_inputs({"tokens": ids, "condition": each.float()}, ["condition"])
    assert inputs.condition.shape == (2, 5)
    assert read_inputs(ids, []) == (ids, None)
    with pytest.raises(ValueError, match="the input types of a batch is a list of 1; it must be a tensor"):
        read_inputs({"tokens": ids, "types": ["a"]}, ["types"])
