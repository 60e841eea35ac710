"""Several processes train, evaluate, save and resume as one does."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import warm
from catalogue import BUILDS, crop, example, randomise
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from processes_fits import PLACES, SavesHalfway, assert_close, build_training, fit
from processes_run import QUIET, run_in_processes
from tiny_chats import write_chats
from tiny_pairs import write_pairs
from tiny_run import load_weights, read_rows, write_inputs
from torch.distributed.device_mesh import init_device_mesh

from lightning_xt.cli import main
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.residuals.hyper_connection import HyperConnection
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.strategies.fsdp2 import FSDP2
from lightning_xt.training.strategies.process_watchdog import exit_together, is_lost_peer
from lightning_xt.training.strategies.sharding import full_state, gather, reshard, shard
from lightning_xt.training.strategies.strategy_checks import check_strategy

SHARED = [place for place, processes in PLACES.items() if processes > 1]
SLOW = pytest.mark.slow
# The command line does this too.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*FSDP2-wrapped module .* returned a view tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided:UserWarning"),
]
TOLERANCES = {"SOAPAdamW": {"atol": 1e-8}}
"""Of optimizers that let rounding errors grow: eigenvectors of near eigenvalues move far."""
TINY_DECODER = {"dim": 8, "depth": 1, "attention": {"heads": 2}}


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Return a folder with text and pairs, as the current folder."""
    write_inputs(tmp_path)
    write_pairs(tmp_path)
    write_chats(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_logged(run, names):
    """Read the values that each batch logged under some names; a step of several batches logs with the last."""
    return [{name: torch.tensor(batch[name]) for name in names if name in batch} for batch in run.steps]


@pytest.mark.parametrize(
    ("kind", "optimizer", "accumulate"),
    [
        ("LanguageModel", "AdamW", 2),
        pytest.param("Seq2Seq", "MuonAdamW", 1, marks=SLOW),
        pytest.param("Conversations", "AdamW", 2, marks=SLOW),
        pytest.param("Conversations", "MuonAdamW", 1, marks=SLOW),
        pytest.param("LanguageModel", "MuonAdamW", 1, marks=SLOW),
        pytest.param("LanguageModel", "NorMuon", 1, marks=SLOW),
        pytest.param("LanguageModel", "MuonAdamW", 2, marks=SLOW),
        pytest.param("LanguageModel", "AdamW", 1, marks=SLOW),
        pytest.param("MaskedLanguageModel", "AdamW", 1, marks=SLOW),
        pytest.param("Seq2Seq", "AdamW", 1, marks=SLOW),
        pytest.param("Seq2Seq", "AdamW", 2, marks=SLOW),
        pytest.param("Seq2Seq", "MuonAdamW", 2, marks=SLOW),
        pytest.param("LanguageModel", "SOAPAdamW", 1, marks=SLOW),
        pytest.param("Seq2Seq", "SOAPAdamW", 2, marks=SLOW),
    ],
)
def test_two_processes_train_as_one(inputs, kind, optimizer, accumulate):
    run = partial(fit, inputs, kind=kind, optimizer=optimizer, accumulate=accumulate)
    one = run("one")
    names = ["optim/grad_norm", "optim/lr", "val/loss", "train/loss"]
    assert {*names} <= one.steps[-1].keys()
    for place in SHARED:
        shared = run(place)
        # Logged numbers have 32 bits.
        torch.testing.assert_close(read_logged(shared, names), read_logged(one, names), rtol=3e-7, atol=0)
        assert_close(shared.weights, one.weights, **TOLERANCES.get(optimizer, {}))
        assert shared.optimizer["param_groups"] == one.optimizer["param_groups"]
        assert_close(shared.optimizer["state"], one.optimizer["state"], **TOLERANCES.get(optimizer, {}))
        assert shared.seen == one.seen
        # Each token counts once; only one process decodes, because all pairs are in one batch.
        first, second = shared.metrics
        assert first == second and first.keys() == one.metrics[0].keys()
        assert first == pytest.approx(one.metrics[0], rel=3e-7)


def test_shares_and_copies_are_bit_for_bit_the_same(inputs):
    # Half of a sum equals the sum of halves, and without clipping nothing else differs.
    runs = [fit(inputs, place, clip=None, dtype=torch.float32) for place in SHARED]
    torch.testing.assert_close(runs[0].weights, runs[1].weights, rtol=0, atol=0)
    # With 32 bits against one process: a batch of eight rows is summed in another order than two of four.
    one = fit(inputs, "one", clip=None, dtype=torch.float32)
    torch.testing.assert_close(runs[0].weights, one.weights, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_shards_train_with_compiled_blocks(inputs):
    """Shards train in separate processes, because the run-time checks of shapes in the tests cannot be traced."""
    script = Path(__file__).parents[1] / "compiled_shards.py"
    environment = {**os.environ, "LIGHTNING_XT_NO_SHAPE_CHECKS": "1"}
    run = subprocess.run([sys.executable, script, inputs], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "15 weights agree" in run.stdout, run.stdout + run.stderr


def describe_structure(value):
    """Return the keys, shapes and types of a checkpoint."""
    if isinstance(value, dict):
        return {key: describe_structure(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [describe_structure(each) for each in value]
    return (value.shape, value.dtype, value.device) if isinstance(value, torch.Tensor) else type(value)


@pytest.mark.parametrize(
    ("first", "second", "kind", "optimizer"),
    [
        ("FSDP2", "one", "LanguageModel", "NorMuon"),
        pytest.param("FSDP2", "one", "LanguageModel", "MuonAdamW", marks=SLOW),
        pytest.param("one", "FSDP2", "LanguageModel", "NorMuon", marks=SLOW),
        pytest.param("FSDP2", "FSDP2", "LanguageModel", "NorMuon", marks=SLOW),
        ("FSDP2", "FSDP2", "LanguageModel", "SOAPAdamW"),
        pytest.param("FSDP2", "one", "LanguageModel", "SOAPAdamW", marks=SLOW),
        pytest.param("one", "FSDP2", "LanguageModel", "SOAPAdamW", marks=SLOW),
        pytest.param("ddp", "one", "Conversations", "AdamW", marks=SLOW),
        pytest.param("one", "FSDP2", "Conversations", "MuonAdamW", marks=SLOW),
        pytest.param("one", "FSDP2", "LanguageModel", "MuonAdamW", marks=SLOW),
        *(
            pytest.param(first, second, kind, optimizer, marks=SLOW)
            for first in PLACES
            for second in PLACES
            if first != second
            for kind, optimizer in (("LanguageModel", "AdamW"), ("Seq2Seq", "MuonAdamW"))
        ),
    ],
)
def test_a_checkpoint_resumes_anywhere(inputs, first, second, kind, optimizer):
    run = partial(fit, inputs, kind=kind, optimizer=optimizer)
    files = {place: inputs / f"{place}.ckpt" for place in ("one", first)}
    whole = {place: run(place, callbacks=[SavesHalfway(file)]) for place, file in files.items()}
    saved, expected = (torch.load(files[place], weights_only=True) for place in (first, "one"))
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert describe_structure(saved[key]) == describe_structure(expected[key]), key
    goes_on = run(second, resume=files[first])
    assert_close(goes_on.weights, whole["one"].weights, **TOLERANCES.get(optimizer, {}))
    assert_close(goes_on.optimizer["state"], whole["one"].optimizer["state"], **TOLERANCES.get(optimizer, {}))
    assert goes_on.seen == whole["one"].seen


@pytest.mark.parametrize(
    ("first", "second", "optimizer"),
    [
        ("FSDP2", "FSDP2", "AdamW"),
        pytest.param("FSDP2", "one", "MuonAdamW", marks=SLOW),
        pytest.param("one", "FSDP2", "MuonAdamW", marks=SLOW),
        pytest.param("ddp", "ddp", "AdamW", marks=SLOW),
        pytest.param("ddp", "FSDP2", "AdamW", marks=SLOW),
    ],
)
def test_an_adapter_resumes_anywhere_and_leaves_its_base(inputs, first, second, optimizer):
    run = partial(fit, inputs, kind="LoRA", optimizer=optimizer)
    start = build_training("LoRA", optimizer, 1)[0]
    whole, file = run("one"), inputs / "halfway.ckpt"
    halfway = run(first, callbacks=[SavesHalfway(file)])
    goes_on = run(second, resume=file)
    base = {name: each.detach() for name, each in start.named_parameters() if not each.requires_grad}
    assert len(base) > 10
    for found in (whole.weights, halfway.weights, torch.load(file, weights_only=True)["state_dict"], goes_on.weights):
        assert all(torch.equal(found[name], each) for name, each in base.items())
    for found in (halfway, goes_on):
        assert_close(found.weights, whole.weights)
        assert_close(found.optimizer["state"], whole.optimizer["state"])
    assert any(not torch.equal(whole.weights[name], start.state_dict()[name]) for name in whole.weights)


@SLOW
def test_shards_resume_from_the_weights_next_to_an_average(inputs):
    file = inputs / "last.ckpt"
    whole = fit(inputs, "one", callbacks=[SavesHalfway(file)])
    averaged = inputs / "averaged.ckpt"
    fit(inputs, "one", callbacks=[ExponentialAverage(0.5), SavesHalfway(averaged)])
    plain, average = (torch.load(path, weights_only=True)["state_dict"] for path in (file, averaged))
    assert any(not torch.equal(plain[name], average[name]) for name in plain)
    assert_close(fit(inputs, "FSDP2", resume=averaged).weights, whole.weights)


@SLOW
@pytest.mark.parametrize(("name", "build"), BUILDS.items(), ids=BUILDS)
def test_every_variant_learns_from_its_share(tmp_path, name, build):
    def gradients():
        model = randomise(build)
        share = select_half()
        if any(parameter.dim() == 0 for parameter in model.parameters()):
            return None
        tokens, inputs = example(4, 7)
        if share is not None:
            torch.distributed.init_process_group("gloo", rank=share, world_size=2)
            shard(model, init_device_mesh("cpu", (2,)))
            rows = slice(2 * share, 2 * share + 2)
            tokens, inputs = tokens[rows], crop(inputs, slice(None), rows)
        model(tokens, inputs=inputs).square().mean().backward()
        return full_state({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, keep=True)

    alone = gradients()
    if alone is None:
        pytest.skip("has a single number, which is refused")
    assert alone
    for shared in run_in_processes(gradients, 2, tmp_path):
        torch.testing.assert_close(shared, alone, rtol=1e-9, atol=1e-11)


def select_half():
    """Return the slice of this process's half of the rows; None with one process."""
    rank = os.environ.get("LOCAL_RANK")
    return None if rank is None else int(rank)


def test_all_weights_of_a_tied_table_stay_one(inputs):
    def train_half():
        model, data = build_training("Seq2Seq", "AdamW", 2)
        strategy = FSDP2()
        trainer = Trainer(max_steps=3, strategy=strategy, devices=2, limit_val_batches=0, **QUIET)
        trainer.fit(model, data)
        model.configure_model()
        tables = {
            id(each)
            for each in (
                model.network.encoder.token_embedding.weight,
                model.network.decoder.token_embedding.weight,
                model.network.decoder.head.weight,
            )
        }
        own = [parameter.to_local().numel() for parameter in model.parameters()]
        return len(tables), sum(own), sum(parameter.numel() for parameter in model.parameters())

    (tables, first, total), (_, second, _) = run_in_processes(train_half, 2, inputs)
    assert tables == 1
    assert first + second == total and abs(first - second) < total / 10


@pytest.mark.parametrize(
    ("options", "trainer", "model", "rule"),
    [
        (
            {"data_parallel_size": 2},
            {},
            {},
            "data_parallel_size is 2, but FSDP2 shards over .* there are 1; omit the option",
        ),
        (
            {},
            {"precision": "64-true"},
            {},
            "precision is 64-true, which FSDP2 does not support; use 32-true, bf16-mixed",
        ),
        (
            {},
            {},
            {"compile": {"mode": "reduce-overhead"}},
            "mode is reduce-overhead, whose CUDA graphs need .* omit it",
        ),
    ],
)
def test_what_does_not_go_with_shares_is_refused_at_start(inputs, options, trainer, model, rule):
    run = Trainer(max_steps=1, strategy=FSDP2(**options) if options else "fsdp2", devices=1, **QUIET, **trainer)
    with pytest.raises(ValueError, match=rule):
        run.fit(LanguageModel.from_config({"decoder": TINY_DECODER, **model}), TextFiles("corpus.txt"))
    assert not torch.distributed.is_initialized()


def test_processes_that_share_a_batch_are_refused():
    with pytest.raises(ValueError, match="tensor_parallel_size is 2, but FSDP2 gives each process another batch"):
        FSDP2(tensor_parallel_size=2)


@pytest.mark.parametrize("strategy", [ModelParallelStrategy, FSDPStrategy])
def test_strategies_whose_shares_nothing_knows_are_refused(strategy):
    with pytest.raises(ValueError, match=f"is {strategy.__name__}, whose shards .* use --trainer.strategy FSDP2, or"):
        check_strategy(strategy())
    check_strategy(DDPStrategy())
    check_strategy(FSDP2())


def test_a_single_number_cannot_be_sharded():
    decoder = Decoder(11, dim=64, depth=1, residual=HyperConnection)
    with pytest.raises(ValueError, match=r"FSDP2 cannot shard stack\..*read_scale, which is a single number; use"):
        shard(decoder, SimpleNamespace())


def test_errors_of_a_lost_process_are_distinguished_from_others():
    gloo = "[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3452"
    assert is_lost_peer(RuntimeError(gloo))
    assert is_lost_peer(torch.distributed.DistBackendError("NCCL error: remote process exited or a network error"))
    assert is_lost_peer(torch.distributed.DistNetworkError("failed to recv, got 0 bytes"))
    wrapped = RuntimeError("while an exception was handled")
    wrapped.__context__ = RuntimeError(gloo)
    assert is_lost_peer(wrapped)
    assert not is_lost_peer(RuntimeError("the size of tensor a (3) must match; connection closed"))
    assert not is_lost_peer(torch.distributed.DistBackendError("NCCL error: duplicate GPU detected"))
    with pytest.raises(RuntimeError, match="must match"), exit_together(SimpleNamespace()):
        raise RuntimeError("sizes must match")
    mesh = "Gloo connectFullMesh failed with [third_party/gloo/gloo/transport/tcp/pair.cc:144] timed out connecting: "
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=None))
    with pytest.raises(ValueError, match=r"timed out connecting: .* set GLOO_SOCKET_IFNAME to"), exit_together(trainer):
        raise RuntimeError(f"{mesh}SO_ERROR: Connection timed out, remote=[127.0.0.1]:31337")


def test_an_invalid_strategy_is_reported(inputs, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--trainer.strategy", "nonsense"]) == 2
    assert "lightning-xt: error: trainer: You selected an invalid strategy name" in capsys.readouterr().err
    assert not Path("runs").exists()


SENTENCES = {
    0: "process 0 (the first) ended",
    1: "process 1 (the first is 0) was killed by SIGKILL",
}


def find_children(parent):
    """Return the children of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


def has_ended(process):
    """Return whether a process has ended, a zombie included."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(what, seconds):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("strategy", "victim"),
    [
        ("FSDP2", 0),
        pytest.param("FSDP2", 1, marks=SLOW),
        pytest.param("ddp", 0, marks=SLOW),
        pytest.param("ddp", 1, marks=SLOW),
    ],
)
def test_a_process_that_dies_ends_the_others(inputs, strategy, victim, capsys):
    options = ["--trainer.strategy", strategy, "--trainer.devices", "2"]
    endless = ["--trainer.max_steps", "1000000", "--validate_every", "1000000", "--checkpoint_every", "2"]
    command = [sys.executable, "-m", "lightning_xt", "fit", "-c", "tiny.yaml", *options, *endless]
    with Path("err.txt").open("w") as err:
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, start_new_session=True)
    try:
        # A busy machine starts slowly.
        wait_for(Path("runs/tiny/0/checkpoints/last.ckpt").is_file, 150)
        (second,) = find_children(first.pid)
        # Any step.
        time.sleep(random.random() / 2)
        os.kill((first.pid, second)[victim], signal.SIGKILL)
        wait_for(lambda: has_ended(first.pid) and has_ended(second), 40)
        assert first.wait() == (-signal.SIGKILL if victim == 0 else 1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    told = [line for line in Path("err.txt").read_text().splitlines() if line.startswith("lightning-xt")]
    assert told == [f"lightning-xt: stopped, because {SENTENCES[victim]}; resume with --ckpt_path last"]
    assert "Traceback" not in Path("err.txt").read_text()
    # One process resumes the run of two.
    step = torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["global_step"]
    options = ["--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.max_steps", str(step + 2)]
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", *options]) == 0
    assert torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == step + 2


def run_command(*args, processes=1, strategy="auto"):
    """Run a command in a number of processes, and return its last lines."""
    given = [*args, "--trainer.devices", str(processes), "--trainer.strategy", strategy]
    done = warm.run(given, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if re.match(r"(val|test)/|run=|output=", line))


@SLOW
@pytest.mark.parametrize("strategy", SHARED)
def test_the_command_line_in_two_processes(inputs, strategy):
    Path("prompts.txt").write_text("fox\nthe lazy\na\n")
    plain = ["-c", "tiny.yaml", "--model.decoder.dropout", "0", "--sample_text.generation.temperature", "0"]
    one = run_command("fit", *plain, "--data.batch_size", "4", "--name", "one")
    two = run_command("fit", *plain, "--name", "two", processes=2, strategy=strategy)
    assert float(two["val/bits_per_byte"]) == pytest.approx(float(one["val/bits_per_byte"]), abs=2e-6)
    # All sample, one writes; samples are greedy, of logits that differ in their last bits.
    assert Path("runs/two/0/samples.txt").read_text() == Path("runs/one/0/samples.txt").read_text()
    ours, theirs = read_rows("runs/two/0"), read_rows("runs/one/0")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("optim/grad_norm", "val/loss"):
            assert (mine[name] == "") == (other[name] == "")
            assert not mine[name] or float(mine[name]) == pytest.approx(float(other[name]), rel=1e-5)
    best = ["-c", "runs/two/0/config.yaml", "--ckpt_path", "best"]
    for subcommand in ("validate", "test"):
        alone, shared = (
            run_command(subcommand, *best, processes=n, strategy=s) for n, s in ((1, "auto"), (2, strategy))
        )
        assert alone.keys() == shared.keys()
        numbers = [name for name in alone if name != "run"]
        assert numbers and all(float(alone[n]) == pytest.approx(float(shared[n]), rel=2e-6) for n in numbers)
    # One process has two prompts, the other one, and they decode different numbers of tokens.
    predict = ["predict", *best, "--data.predict_prompts", "prompts.txt", "--sampling.temperature", "0"]
    run_command(*predict, "--output", "one.jsonl")
    run_command(*predict, "--output", "two.jsonl", processes=2, strategy=strategy)
    texts = [[json.loads(line)["text"] for line in Path(f"{n}.jsonl").read_text().splitlines()] for n in ("one", "two")]
    assert len(texts[0]) == 3 and texts[0] == texts[1]


@SLOW
@pytest.mark.parametrize("strategy", SHARED)
def test_an_adapter_predicts_in_two_processes(inputs, strategy):
    Path("prompts.txt").write_text("fox\nthe lazy\na\n")
    run_command("fit", "-c", "tiny.yaml")
    Path("lora.yaml").write_text(
        "model: {init_args: {adapter: {class_path: LoRA}, optimizer: {init_args: {lr: 0.1}}}}\n"
    )
    run_command("fit", "-c", "lora.yaml", "--init_from", "runs/tiny", processes=2, strategy=strategy)
    predict = ["predict", "-c", "runs/lora/0/config.yaml", "--ckpt_path", "best", "--sampling.temperature", "0"]
    predict += ["--data.predict_prompts", "prompts.txt", "--output"]
    run_command(*predict, "one.jsonl")
    run_command(*predict, "two.jsonl", processes=2, strategy=strategy)
    texts = [[json.loads(line)["text"] for line in Path(f"{n}.jsonl").read_text().splitlines()] for n in ("one", "two")]
    assert len(texts[0]) == 3 and texts[0] == texts[1]


@SLOW
@pytest.mark.parametrize("strategy", SHARED)
def test_another_number_of_processes_resumes_with_the_samples_that_follow(inputs, strategy):
    plain = ["-c", "tiny.yaml", "--model.decoder.dropout", "0", "--model.schedule", "null", "--validate_every", "null"]
    one, longer = ["--data.batch_size", "4"], ["--trainer.max_steps", "9"]
    run_command("fit", *plain, *one, *longer, "--name", "whole")
    run_command("fit", *plain, "--name", "cut", processes=2, strategy=strategy)
    run_command("fit", "-c", "runs/cut/0/config.yaml", "--ckpt_path", "last", *one, *longer)
    torch.testing.assert_close(load_weights("runs/cut/0"), load_weights("runs/whole/0"), rtol=0, atol=2e-5)
    seen = [torch.load(f"runs/{name}/0/checkpoints/last.ckpt", weights_only=True) for name in ("cut", "whole")]
    assert seen[0]["TextFiles"]["samples_seen"] == seen[1]["TextFiles"]["samples_seen"] == 36


def test_measuring_in_inference_mode_does_not_stop_learning(tmp_path):
    """Inference mode of a validation does not stop training, as on GPUs; with gloo Lightning avoids the mode."""

    def train_after_validation():
        rank = select_half()
        torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
        decoder = randomise(BUILDS["one_kv_head"])
        before = {name: p.detach().clone() for name, p in decoder.named_parameters()}
        shard(decoder, init_device_mesh("cpu", (2,)))
        with torch.inference_mode():
            gather(decoder)
            measured = {name: p.clone() for name, p in decoder.named_parameters()}
            if rank == 0:
                # Only one process calls, so no other answers.
                decoder(torch.zeros(1, 5, dtype=torch.long))
            reshard(decoder)
        torch.testing.assert_close(measured, before, rtol=0, atol=0)
        decoder(torch.zeros(1, 5, dtype=torch.long)).square().mean().backward()
        return all(p.grad is not None and p.grad.to_local().isfinite().all() for p in decoder.parameters())

    assert run_in_processes(train_after_validation, 2, tmp_path) == [True, True]
