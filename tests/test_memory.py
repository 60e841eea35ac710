"""Messages when a machine does not have enough memory."""

from pathlib import Path

import pytest
import torch

from lightning_xt.cli import main
from lightning_xt.commands.errors.out_of_memory import explain_out_of_memory
from lightning_xt.inference.text_generator import GenerationSession
from lightning_xt.models.decoder import Decoder
from lightning_xt.system.free_memory import get_free_memory, refuse_without_memory
from lightning_xt.training.language_model import LanguageModel


def raise_on_cpu(*args, **kwargs):
    """Raise the error of torch on a CPU."""
    torch.empty(2**60)


def fail_with(capsys, *options):
    capsys.readouterr()
    assert main(["fit", "-c", "tiny.yaml", *options]) == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("lightning-xt: error: ")


def test_in_training(fresh, monkeypatch, capsys):
    monkeypatch.setattr(LanguageModel, "training_step", raise_on_cpu)
    assert fail_with(capsys) == (
        "there is not enough memory to train a step; lower --data.batch_size (now 2) or --data.seq_len (now 8), and "
        "raise --trainer.accumulate_grad_batches (now 1) as much to keep the size of a step; then run the command again"
    )
    # The run had not begun.
    assert not (fresh / "runs").exists()


def test_of_several_processes_each_says_it_for_itself(fresh, monkeypatch, capsys):
    monkeypatch.setattr(LanguageModel, "training_step", raise_on_cpu)
    for module in ("cli", "system.shared_errors"):
        monkeypatch.setattr(f"lightning_xt.{module}.prints_for_user", lambda: False)
    monkeypatch.setenv("RANK", "3")
    assert fail_with(capsys).startswith(
        "process 3 (the first is 0): there is not enough memory to train a step; lower --data"
    )
    # The first process reports a problem of all.
    assert main(["fit", "-c", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == ""


def test_a_model_that_is_too_large(fresh, capsys):
    assert fail_with(capsys, "--model.decoder.feedforward.hidden_dim", f"{10**12}").startswith(
        "there is not enough memory to begin; choose a smaller model, such as by --model.decoder.dim"
    )
    assert not (fresh / "runs").exists()


def test_a_model_that_the_system_would_be_killed_for(fresh, monkeypatch, capsys):
    """A model larger than the memory is refused, because Linux would kill the process later."""
    monkeypatch.setattr("lightning_xt.system.free_memory.get_free_memory", lambda: 10**6)
    assert fail_with(capsys, "--model.decoder.dim", "1024").startswith(
        "there is not enough memory to begin; choose a smaller model, such as by --model.decoder.dim"
    )
    assert not (fresh / "runs").exists()
    with pytest.raises(MemoryError, match=r"for the model's parameters: 0.0 GB are free"):
        LanguageModel.from_config({"decoder": {"dim": 1024, "depth": 1}})
    # Refused tensors do not count for later ones, and neither do tensors on other devices.
    LanguageModel.from_config({"decoder": {"dim": 64, "depth": 2}})
    with torch.device("meta"):
        LanguageModel.from_config({"decoder": {"dim": 1024, "depth": 1}})


def test_parameters_that_share_memory_count_once(monkeypatch):
    monkeypatch.setattr("lightning_xt.system.free_memory.get_free_memory", lambda: 10 * 4)
    with refuse_without_memory():
        first, second = torch.nn.Linear(10, 1, bias=False), torch.nn.Linear(10, 1, bias=False, device="meta")
        second.weight = first.weight
        with pytest.raises(MemoryError):
            torch.nn.Linear(1, 1, bias=False)
    torch.nn.Linear(1, 1, bias=False)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads /proc")
def test_free_memory_is_that_of_the_machine():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < get_free_memory() < total


def test_in_validation(fresh, monkeypatch, capsys):
    monkeypatch.setattr(LanguageModel, "validation_step", raise_on_cpu)
    wanted = (
        "there is not enough memory to evaluate a batch; lower --data.eval_batch_size (now 4) or --data.seq_len (now "
        "8); then run the command again"
    )
    assert fail_with(capsys) == wanted
    # A checkpoint exists now.
    wanted = wanted.replace("run the command again", "resume with --ckpt_path last").replace("(now 4)", "(now 2)")
    assert fail_with(capsys, "--checkpoint_every", "2", "--data.eval_batch_size", "null") == wanted


def test_in_the_samples_of_a_validation(fresh, monkeypatch, capsys):
    monkeypatch.setattr(GenerationSession, "_report", raise_out_of_memory)
    assert fail_with(capsys) == (
        "there is not enough memory to draw the samples of a validation; lower --sample_text.generation.batch (now 64) "
        "or --sample_text.generation.max_new_tokens (now 4), or draw none: --sample_text.prompts []; then run the "
        "command again"
    )


def raise_out_of_memory(*args, **kwargs):
    try:
        raise_on_cpu()
    except RuntimeError as error:
        raise ValueError("there is not enough memory to decode 1 rows; lower --batch") from error
    yield


def test_prediction_and_generation_name_decoding(trained, monkeypatch, capsys):
    monkeypatch.setattr(Decoder, "forward", raise_on_cpu)
    command = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best", "--output", "out.jsonl"]
    assert main([*command, "--data.predict_prompts", "prompts.txt"]) == 2
    said = capsys.readouterr().err
    assert "there is not enough memory to decode 3 rows at once" in said
    assert "--sampling.batch" in said
    assert main(["generate", "runs/tiny", "--prompt", "a"]) == 2
    assert "there is not enough memory to decode 1 rows at once" in capsys.readouterr().err


def test_before_anything_begins(fresh, monkeypatch, capsys):
    monkeypatch.setattr(LanguageModel, "configure_optimizers", raise_on_cpu)
    assert fail_with(capsys) == (
        "there is not enough memory to begin; choose a smaller model, such as by --model.decoder.dim or "
        "--model.decoder.depth, then run the command again"
    )


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB."), MemoryError("std::bad_alloc")]
)
def test_in_other_words(error):
    told = explain_out_of_memory(error, "training", {"trainer": {}}, None)
    assert told.startswith(
        "there is not enough memory to train a step; make the batches of the data smaller, and raise"
    )
    assert explain_out_of_memory(RuntimeError("another"), "training", {"trainer": {}}, None) is None


PAIRS = {"class_path": "ParallelText", "init_args": {"max_tokens": 4096, "max_length": None, "path": "a"}}


@pytest.mark.parametrize(
    ("phase", "options", "part"),
    [
        (
            "training",
            {"data": PAIRS, "trainer": {"accumulate_grad_batches": 2}},
            "to train a step; lower --data.max_tokens (now 4096), and raise --trainer.accumulate_grad_batches (now 2)",
        ),
        (
            "evaluation",
            {"data": PAIRS, "model": {"class_path": "Seq2Seq", "init_args": {"val_decode_pairs": 256}}},
            "to evaluate a batch; lower --data.max_tokens (now 4096) or --model.val_decode_pairs (now 256); then",
        ),
        (
            "evaluation",
            {"data": {"class_path": "GeneratorPairs", "init_args": {"function": "mine.pairs"}}},
            "to evaluate a batch; make the batches of the data smaller; then run",
        ),
        (
            "prediction",
            {"sampling": {"batch": 64, "max_new_tokens": None}},
            "to predict; lower --sampling.batch (now 64) or --sampling.max_new_tokens (now null); then run",
        ),
    ],
    ids=["pairs", "decoded pairs", "a function", "prediction"],
)
def test_what_there_is_to_lower(phase, options, part):
    assert f"there is not enough memory {part}" in explain_out_of_memory(MemoryError(), phase, options, None)


def test_other_errors_are_not_changed(fresh, monkeypatch):
    def fail(*args):
        raise RuntimeError("another")

    monkeypatch.setattr(LanguageModel, "training_step", fail)
    with pytest.raises(RuntimeError, match="another"):
        main(["fit", "-c", "tiny.yaml"])
