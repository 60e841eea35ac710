"""FLOPs of a model, and peaks of a machine."""

import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_run import read_rows

from lightning_xt.cli import main
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.training.callbacks import throughput
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.metrics import utilization
from lightning_xt.training.metrics.utilization import (
    count_module_flops,
    count_training_flops,
    find_peak_flops,
    measure_peak_memory,
)


def test_a_token_costs_six_flops_a_weight_and_its_pairs():
    decoder = Decoder(11, dim=16, depth=3)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    weights = sum(each.weight.numel() for each in decoder.modules() if isinstance(each, torch.nn.Linear))
    # Scores and values of 7 tokens, two products of the width each, forward and twice backward.
    assert count_training_flops(decoder, 7) == 6 * weights + 3 * 3 * 2 * 2 * 7 * 16
    assert decoder.training
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())


def test_parts_of_an_objective_are_not_counted():
    options = {"decoder": {"dim": 16, "depth": 1, "attention": {"heads": 2}}}
    model = LanguageModel.from_config(options)
    assert count_module_flops(model, 7) == count_training_flops(model.network, 7) > 0
    objective = {"class_path": "NextToken", "init_args": {"auxiliaries": ["MultiTokenPrediction"]}}
    assert count_module_flops(LanguageModel.from_config({**options, "objective": objective}), 7) is None
    assert count_module_flops(torch.nn.Linear(2, 2), 7) is None


def test_positions_that_end_before_the_row_does():
    decoder = Decoder(11, dim=16, depth=1, embeddings=[partial(LearnedPositions, max_length=4)])
    assert count_training_flops(decoder, 4) is not None
    assert count_training_flops(decoder, 5) is None


def test_a_cpu_is_measured(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(utilization.time, "perf_counter", lambda: next(clock))
    assert find_peak_flops(torch.device("cpu"), torch.float32) == 2.0 * 1024**3
    assert find_peak_flops(torch.device("meta"), torch.float32) is None
    assert 1e7 < measure_peak_memory(torch.device("cpu")) < 1e12


GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "half", "single"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9),
        ("NVIDIA H200", 989.4, 66.9),
        ("NVIDIA GH200 480GB", 989.4, 66.9),
        ("NVIDIA H100 NVL", 835, None),
        ("NVIDIA H100 PCIe", 756, 51.2),
        ("NVIDIA L40S", 362, 91.6),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA A10", 125, 31.2),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("A100-PCIE-40GB", 312, 19.5),
        ("NVIDIA B200", 2250, None),
        # Unknown devices whose names begin with a known one.
        ("NVIDIA A10G", None, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
        ("NVIDIA GeForce RTX 4090 D", None, None),
    ],
)
def test_a_gpu_is_looked_up(monkeypatch, caplog, name, half, single):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    for dtype, expected in ((torch.bfloat16, half), (torch.float16, half), (torch.float32, single)):
        caplog.clear()
        with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
            assert find_peak_flops(GPU, dtype) == (None if expected is None else expected * 1e12)
        told = f"mfu is omitted: the FLOPs a second of {name} in {dtype} are not known"
        assert caplog.messages == ([told] if expected is None else [])


def test_a_gpu_without_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-32GB")
    assert find_peak_flops(GPU, torch.bfloat16) is None
    assert find_peak_flops(GPU, torch.float16) == 125e12


def test_float32_in_tf32_has_no_figure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert find_peak_flops(GPU, torch.float32) is None
        assert find_peak_flops(GPU, torch.bfloat16) == 989.4e12
    finally:
        torch.set_float32_matmul_precision(before)
    assert find_peak_flops(GPU, torch.float32) == pytest.approx(66.9e12)


def test_an_unknown_gpu_is_reported_once(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Graphics 9000")
    monkeypatch.setattr(throughput, "SETTLED", -1.0)
    monkeypatch.setattr(throughput, "measure_peak_memory", lambda device: 0.0)
    decoder = Decoder(11, dim=16, depth=1)
    module = SimpleNamespace(network=decoder, device=GPU, parameters=decoder.parameters)
    trainer = SimpleNamespace(precision="bf16-mixed", world_size=1, global_step=0, train_dataloader=None)
    callback = throughput.Throughput()
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        for trainer.global_step in (1, 2, 3):
            assert "speed/mfu" not in callback._measure(1e9, trainer, module, 7)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
        ("16-mixed", torch.float16),
        ("64-true", torch.float64),
    ],
)
def test_the_fraction_of_all_machines(monkeypatch, precision, dtype):
    asked = []

    def peak(device, kind):
        asked.append(kind)
        return 1e12

    monkeypatch.setattr(throughput, "find_peak_flops", peak)
    decoder = Decoder(11, dim=16, depth=3)
    module = SimpleNamespace(network=decoder, device=torch.device("cpu"), parameters=decoder.parameters)
    trainer = SimpleNamespace(precision=precision, world_size=4)
    assert throughput._ideal_seconds_per_token(trainer, module, 7) == count_training_flops(decoder, 7) / 4e12
    assert asked == [dtype]
    assert throughput._ideal_seconds_per_token(trainer, SimpleNamespace(device=torch.device("cpu")), 7) == 0.0


def test_a_run_that_lasts_shows_its_use_of_the_machine(fresh, monkeypatch):
    monkeypatch.setattr(throughput, "SETTLED", -1.0)
    assert main(["fit", "-c", "tiny.yaml"]) == 0
    assert all(0 < float(row["speed/mfu"]) < 1 and float(row["speed/step_ms"]) > 0 for row in read_rows("runs/tiny/0"))
