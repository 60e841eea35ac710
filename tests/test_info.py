"""info: its output for a checkpoint, with and without the tree, and its message for other files."""

import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from tiny_run import read_rows

from lightning_xt.cli import main
from lightning_xt.training.language_model import LanguageModel

BEST = Path("runs/tiny/0/checkpoints/best.ckpt")


def run_info(capsys, *options):
    capsys.readouterr()
    assert main(["info", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def fail(capsys, *options):
    """Run info with a mistake, and return its sentence."""
    capsys.readouterr()
    assert main(["info", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert len(captured.err) < 500
    return captured.err.removeprefix("lightning-xt: error: ").rstrip("\n")


def change(checkpoint=BEST, **values):
    """Write a checkpoint again with other values; None removes a value."""
    content = torch.load(checkpoint, weights_only=True) | values
    torch.save({name: value for name, value in content.items() if value is not None}, checkpoint)


def own(**values):
    return torch.load(BEST, weights_only=True)["lightning_xt"] | values


def test_a_run_in_words(trained, capsys):
    lines = run_info(capsys, "runs/tiny").splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 110
    start = {line[:14].rstrip(): line[15:] for line in lines if line[:14].strip()}
    assert start["file"].startswith(f"{BEST}, {BEST.stat().st_size:,} bytes, written 20")
    assert start["kind"] == "LanguageModel"
    assert start["step"] == "6, 12 samples seen"
    assert start["parameters"] == "4,888 (float32), 19,552 bytes"
    assert f"val/loss {float(read_rows()[-1]['val/loss']):.6f}" in start["metrics"]
    assert start["data"].startswith("TextFiles: path corpus.txt, ")
    assert len(start["data hash"]) == 64
    assert start["tokenizer"] == "Bytes"
    assert start["vocab"] == "source 256, target 256"
    assert start["decoder"].startswith("Decoder: dim 8, depth 1, norm RMSNorm(eps 1e-06), placement PreNorm")
    assert start["  attention"].startswith("Attention: heads 2, projection MultiHead, position Rotary(base 10000.0)")
    assert start["  feedforward"].startswith("MLP: activation GELU")
    assert start["objective"] == "NextToken: label_smoothing 0.0, z_loss 0.0"
    assert start["optimizer"] == "AdamW: lr 0.001, betas [0.9, 0.999], eps 1e-08, weight_decay 0.01"
    assert start["schedule"] == "WarmupCosine: warmup_steps 2, min_fraction 0.1"
    assert start["versions"].startswith("lightning_xt 0.1.0, lightning 2.6")
    assert f"torch {torch.__version__}" in start["versions"]
    assert start["versions"].endswith(", format 2")
    assert start["trained"] == "32-true, 1 process by SingleDeviceStrategy on cpu, 1 batch of each a step"
    assert "weights" not in start


def test_a_run_for_scripts(trained, capsys):
    found = json.loads(run_info(capsys, "runs/tiny/0", "--json"))
    checkpoint = torch.load(BEST, weights_only=True)
    sizes = [value.numel() for value in checkpoint["state_dict"].values()]
    assert found["file"] == str(BEST)
    assert found["bytes"] == BEST.stat().st_size
    assert (found["kind"], found["step"], found["samples_seen"], found["format"]) == ("LanguageModel", 6, 12, 2)
    assert found["parameters"] == {"count": sum(sizes), "bytes": 4 * sum(sizes), "types": ["float32"]}
    assert found["metrics"] == checkpoint["lightning_xt"]["metrics"]
    assert found["metrics"]["val/loss"] == pytest.approx(float(read_rows()[-1]["val/loss"]))
    assert found["data"]["class_path"].endswith("TextFiles")
    assert found["data"]["init_args"]["seq_len"] == 8
    assert found["data"]["hash"] == checkpoint["lightning_xt"]["data"]["hash"]
    assert found["model"]["decoder"]["init_args"]["dim"] == 8
    assert found["model"]["optimizer"]["init_args"]["lr"] == 0.001
    assert not any(name.startswith("_") for name in [*found["model"], *found["data"]["init_args"]])
    assert found["versions"]["torch"] == str(torch.__version__)
    assert "tree" not in found


def test_it_reads_without_lightning(trained):
    script = f"""
import sys
from lightning_xt.cli import main
assert main(["info", {str(BEST)!r}]) == 0
sys.exit(any(name.split(".")[0] == "lightning" or name.startswith("lightning_xt.models") for name in sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("file ")


def test_a_reader_that_has_enough_ends_it_quietly(trained):
    command = f"{sys.executable} -m lightning_xt info runs/tiny | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")


def test_missing_values_are_not_shown(trained, capsys):
    change(
        lightning_xt={"format": 2, "version": "0.1.0"},
        TextFiles=None,
        hyper_parameters=None,
        datamodule_hyper_parameters=None,
        global_step=None,
        state_dict=None,
    )
    lines = run_info(capsys, str(BEST)).splitlines()
    assert [line.split()[0] for line in lines] == ["file", "parameters", "versions"]
    found = json.loads(run_info(capsys, str(BEST), "--json"))
    assert (found["kind"], found["step"], found["samples_seen"], found["metrics"], found["data"]) == (None,) * 5
    assert found["parameters"] == {"count": 0, "bytes": 0, "types": []}


def test_a_kind_and_a_hash_that_are_not_shown(trained, capsys):
    change(lightning_xt={"format": 2, "version": "0.1.0"}, TextFiles={"samples_seen": 9})
    found = json.loads(run_info(capsys, str(BEST), "--json"))
    assert found["kind"] == "LanguageModel"
    assert found["samples_seen"] == 9
    assert found["data"]["hash"] is None
    assert found["data"]["init_args"]["path"] == "corpus.txt"
    assert "data hash" not in run_info(capsys, str(BEST))


def test_tied_tensors_count_once(trained, capsys):
    table = torch.zeros(11, 5)
    change(
        state_dict={"table": table, "again": table, "half": torch.zeros(3, dtype=torch.bfloat16), "no": torch.ones(0)}
    )
    assert "parameters     58 (bfloat16, float32), 226 bytes" in run_info(capsys, str(BEST))


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ({"current_model_state": {"a": torch.ones(2)}}, "moving average, next to the weights that train"),
        ({"lightning_xt": {"format": 2, "averaged": {"steps": [4, 6]}}}, "mean of the steps 4, 6"),
    ],
)
def test_weights_that_are_a_mean(values, weights, trained, capsys):
    change(**values)
    assert f"weights        {weights}" in run_info(capsys, str(BEST)).splitlines()


def test_how_it_was_trained(trained, capsys):
    how = {"precision": "bf16-mixed", "strategy": "DDPStrategy", "device": "cuda", "processes": 8}
    change(lightning_xt=own(trainer={**how, "accumulate_grad_batches": 2}))
    line = "trained        bf16-mixed, 8 processes by DDPStrategy on cuda, 2 batches of each a step"
    assert line in run_info(capsys, str(BEST)).splitlines()


def test_metrics_that_are_not_numbers(trained, capsys):
    change(lightning_xt=own(metrics={"val/loss": math.nan, "train/loss": math.inf}))
    assert "val/loss nan, train/loss inf" in run_info(capsys, str(BEST))
    assert json.loads(run_info(capsys, str(BEST), "--json"))["metrics"] == {"val/loss": None, "train/loss": None}


def test_the_tree(trained, capsys):
    lines = run_info(capsys, "runs/tiny", "--tree").splitlines()
    rows = {line.split("  ")[0].strip() or line.strip().split("  ")[0]: line.split() for line in lines}
    assert lines[lines.index("") + 1].split() == ["stage", "class", "output", "parameters", "FLOPs", "a", "token"]
    assert rows["decoder"][-7:] == ["decoder", "Decoder", "b", "n", "256", "4,888", "5,888"]
    assert rows["to_qkv"] == ["to_qkv", "Linear", "b", "n", "24", "192", "384"]
    assert rows["kernel"] == ["kernel", "explicit/flex/fused", "b", "2", "n", "4", str(4 * 8 * 8)]
    assert rows["position"] == ["position", "Rotary"]
    assert "parameters     4,888, 2,840 without embeddings" in lines
    assert "FLOPs a token  5,888 forward, 17,664 in training, at n = 8" in lines


def test_the_tree_at_another_length(trained, capsys):
    found = json.loads(run_info(capsys, "runs/tiny", "--tree", "--seq_len", "100", "--json"))["tree"]
    products = 2 * (4888 - 2048 - 3 * 8)
    assert found["flops_per_token"] == products + 4 * 100 * 8
    assert found["training_flops_per_token"] == 3 * found["flops_per_token"]
    assert (found["seq_len"], found["device"]) == (100, "meta")
    assert (found["parameters"], found["parameters_without_embeddings"]) == (4888, 2840)
    assert found["stages"]["flops"] == 100 * found["flops_per_token"]
    assert [stage["name"] for stage in found["stages"]["stages"]] == ["token_embedding", "stack", "head"]


def test_layers_in_the_tree(trained, capsys):
    model = LanguageModel.from_config(
        {"decoder": {"dim": 8, "depth": 3, "attention": {"heads": 2}, "layout": "Looped"}}
    )
    change(hyper_parameters=dict(model.hparams))
    text = run_info(capsys, str(BEST), "--tree")
    assert "    layers 0-2 (3x) " in text
    assert "      attention (called 2x) " in text


POSITION = """
import torch
from lightning_xt.nn.positions.base import Position


class Reading(Position):
    \"\"\"Needs a value to compute with.\"\"\"

    def __init__(self, shape) -> None:
        super().__init__()

    def rotate_queries(self, q, at):
        return q * torch.ones(1, device=q.device).item()
"""


def test_a_part_that_needs_values(trained, capsys, monkeypatch):
    (trained / "my_reading.py").write_text(POSITION)
    monkeypatch.syspath_prepend(str(trained))
    attention = {"heads": 2, "position": "my_reading.Reading"}
    model = LanguageModel.from_config({"decoder": {"dim": 8, "depth": 1, "attention": attention}})
    change(hyper_parameters=dict(model.hparams))
    text = run_info(capsys, str(BEST), "--tree")
    assert "FLOPs a token  5,888 forward" in text
    assert text.splitlines()[-1].startswith(
        "a part needs values to compute with, so the forward was computed on the CPU"
    )
    monkeypatch.delitem(sys.modules, "my_reading")
    (trained / "my_reading.py").unlink()
    reason = "--model.decoder.attention.position: No module named 'my_reading'"
    assert fail(capsys, str(BEST), "--tree") == f"the model of {BEST} cannot be built: {reason}"
    assert "position Reading" in run_info(capsys, str(BEST))


def test_trees_that_cannot_be_drawn(trained, capsys):
    assert fail(capsys, str(BEST), "--tree", "--seq_len", "0") == "seq_len is 0; it must be at least 1 token"
    change(datamodule_hyper_parameters=None)
    assert "does not say how long its rows are; give --seq_len" in fail(capsys, str(BEST), "--tree")
    assert "FLOPs a token  5,888 forward" in run_info(capsys, str(BEST), "--tree", "--seq_len", "8")
    options = torch.load(BEST, weights_only=True)["hyper_parameters"]
    embeddings = [{"class_path": "LearnedPositions", "init_args": {"max_length": 16}}]
    options["decoder"]["init_args"]["embeddings"] = embeddings
    change(hyper_parameters=options)
    assert "seq_len is 17, but the model's positions reach only 16" in fail(
        capsys, str(BEST), "--tree", "--seq_len", "17"
    )
    change(hyper_parameters=None)
    assert "does not say what its LanguageModel is made of" in fail(capsys, str(BEST), "--tree")
    change(lightning_xt=own(kind="Seq2Seq"))
    assert "does not say what its Seq2Seq is made of" in fail(capsys, str(BEST), "--tree")


MISTAKES = [
    ("", "info: the following arguments are required: RUN"),
    ("nope", "nope is not a run: there is no such folder or file"),
    (".", ". is not a run: neither it nor a numbered folder in it has"),
    ("corpus.txt", "corpus.txt is not a run: it is a file, but not a checkpoint"),
    ("text.ckpt", "text.ckpt cannot be read as a checkpoint: it is not in the format of torch.save"),
    ("empty.ckpt", "empty.ckpt cannot be read as a checkpoint: it is empty"),
    ("zip.ckpt", "zip.ckpt cannot be read as a checkpoint: it is a zip archive of other files"),
    ("half.ckpt", "half.ckpt cannot be read as a checkpoint: its end is missing"),
    ("program.ckpt", "system besides tensors and plain values, and loading that could run any code"),
    ("tensor.ckpt", "tensor.ckpt cannot be read as a checkpoint: it holds a Tensor"),
    (
        "lightning.ckpt",
        "lightning.ckpt was not written by lightning-xt: it is a checkpoint of Lightning 2.6.6 at step 7 with 1 tensors"
        "; give a .ckpt file of a run",
    ),
    (
        "weights.ckpt",
        "weights.ckpt was not written by lightning-xt: it is a bare state_dict of 2 tensors (weight, bias",
    ),
    ("other.ckpt", "other.ckpt cannot be read as a checkpoint: its lightning_xt is a list, not a mapping"),
    ("nothing.ckpt", "nothing.ckpt was not written by lightning-xt: it is a mapping of 0 entries (nothing"),
    (
        "later.ckpt",
        "the checkpoint has format 99, but lightning-xt 0.1.0 reads format 2; it was written by version 7.0: use that "
        "version",
    ),
    ("later.ckpt --tre", "info: unrecognized arguments: --tre; did you mean --tree?"),
    ("later.ckpt --seq_len ten --tree", "info: argument --seq_len: invalid int value: 'ten'"),
    ("later.ckpt --seq_len 5", "--seq_len 5 is for the tree; add --tree"),
]


class Program:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(("options", "part"), MISTAKES, ids=[options for options, _ in MISTAKES])
def test_a_mistake_gives_one_sentence(options, part, fresh, capsys):
    (fresh / "text.ckpt").write_text("no checkpoint")
    (fresh / "empty.ckpt").touch()
    with zipfile.ZipFile("zip.ckpt", "w") as archive:
        archive.writestr("folder/letter.txt", "hello")
    torch.save({"lightning_xt": {"format": 99, "version": "7.0"}, "state_dict": {"a": torch.ones(999)}}, "later.ckpt")
    content = (fresh / "later.ckpt").read_bytes()
    (fresh / "half.ckpt").write_bytes(content[: len(content) // 2])
    torch.save({"state_dict": {}, "callbacks": Program()}, "program.ckpt")
    torch.save(torch.ones(3), "tensor.ckpt")
    lightning = {"pytorch-lightning_version": "2.6.6", "global_step": 7, "state_dict": {"a": torch.ones(2)}}
    torch.save(lightning, "lightning.ckpt")
    torch.save(torch.nn.Linear(2, 2).state_dict(), "weights.ckpt")
    torch.save({"lightning_xt": [1]}, "other.ckpt")
    torch.save({}, "nothing.ckpt")
    before = {path: path.read_bytes() for path in fresh.rglob("*")}
    assert part in fail(capsys, *options.split())
    assert {path: path.read_bytes() for path in fresh.rglob("*")} == before
