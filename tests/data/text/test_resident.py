"""Windows gathered on the device equal the windows of the file."""

import logging

import numpy as np
import pytest
import torch
from tiny_run import TIMES, load_weights, read_rows

from lightning_xt.cli import main
from lightning_xt.data.text import resident
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.resident import ResidentTokens, Starts, load_resident
from lightning_xt.data.text.windows import TrainingWindows

CPU = torch.device("cpu")


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "text"
    np.random.default_rng(0).integers(0, 256, 997, dtype=np.uint8).tofile(file)
    return MappedTokens(file, 3, 990)


def test_the_windows_are_the_same(tokens, monkeypatch):
    monkeypatch.setattr(resident, "BLOCK", 100)
    held = ResidentTokens(tokens, CPU)
    assert held.tokens.dtype == torch.uint8
    assert torch.equal(held.tokens, torch.from_numpy(tokens[:].copy()))
    windows = TrainingWindows(tokens, 7, seed=4)
    samples = [5, 0, 2**40]
    starts = Starts(windows).__getitems__(samples)
    assert torch.equal(held.windows(starts.starts, 7), windows.__getitems__(samples))
    assert torch.equal(Starts(windows)[5].starts, starts.starts[:1])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_is_the_same(fresh, workers):
    for name, options in {"file": [], "device": ["--data.resident", "true", "--data.num_workers", workers]}.items():
        assert main(["fit", "-c", "tiny.yaml", "--name", name, *options]) == 0
    left, right = load_weights("runs/file/0"), load_weights("runs/device/0")
    assert all(torch.equal(left[name], right[name]) for name in left)
    for one, other in zip(read_rows("runs/file/0"), read_rows("runs/device/0"), strict=True):
        assert one | TIMES == other | TIMES


def test_auto_asks_for_a_gpu_with_room(tokens, monkeypatch, caplog):
    assert load_resident(tokens, CPU, False, "the text") is None
    assert load_resident(tokens, CPU, "auto", "the text") is None
    assert load_resident(tokens, CPU, True, "the text") is not None
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (len(tokens) * resident.ROOM - 1, 0))
    with caplog.at_level(logging.INFO):
        assert load_resident(tokens, gpu, "auto", "the text") is None
    assert "the text: its 0.0 GB stay in the file, because cuda:0 has 0.0 GB free" in caplog.text


def raise_from(error):
    def empty(*args, **kwargs):
        raise error

    return empty


def test_auto_reads_the_file_where_copying_runs_out_of_memory(tokens, monkeypatch, caplog):
    left = iter([10**9, 5 * 10**8])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(left), 0))
    monkeypatch.setattr(torch, "empty", raise_from(torch.OutOfMemoryError("no room")))
    with caplog.at_level(logging.INFO):
        assert load_resident(tokens, torch.device("cuda", 0), "auto", "the text") is None
    assert "the text: its 0.0 GB stay in the file, because cuda:0 has 0.5 GB free" in caplog.text


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory")]
)
def test_a_device_without_room(tokens, monkeypatch, error):
    monkeypatch.setattr(torch, "empty", raise_from(error))
    with pytest.raises(ValueError, match=r"--data.resident is true, but the 0.0 GB of the text do not fit on cpu"):
        load_resident(tokens, CPU, True, "the text")


@pytest.mark.parametrize("resident", ["auto", True])
def test_other_failures_stay_what_they_are(tokens, monkeypatch, resident):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 0))
    monkeypatch.setattr(torch, "empty", raise_from(RuntimeError("device-side assert")))
    with pytest.raises(RuntimeError, match="device-side assert"):
        load_resident(tokens, torch.device("cuda", 0), resident, "the text")
