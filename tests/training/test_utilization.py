"""The arithmetic of a model, and of a machine."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_run import rows

from lightning_xt.cli import main
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.training import utilization
from lightning_xt.training.callbacks import throughput
from lightning_xt.training.utilization import peak_flops, peak_memory, training_flops


def test_a_token_costs_six_flops_a_weight_and_its_pairs():
    decoder = Decoder(11, dim=16, depth=3)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    weights = sum(each.weight.numel() for each in decoder.modules() if isinstance(each, torch.nn.Linear))
    # Scores and values of 7 tokens, two products of the width each, forward and twice backward.
    assert training_flops(decoder, 7) == 6 * weights + 3 * 3 * 2 * 2 * 7 * 16
    assert decoder.training
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())


def test_positions_that_end_before_the_row_does():
    decoder = Decoder(11, dim=16, depth=1, embeddings=[partial(LearnedPositions, max_length=4)])
    assert training_flops(decoder, 4) is not None
    assert training_flops(decoder, 5) is None


def test_a_cpu_is_measured(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(utilization.time, "perf_counter", lambda: next(clock))
    assert peak_flops(torch.device("cpu"), torch.float32) == 2.0 * 1024**3
    assert peak_flops(torch.device("meta"), torch.float32) is None
    assert 1e7 < peak_memory(torch.device("cpu")) < 1e12


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
        ("16-mixed", torch.float16),
    ],
)
def test_the_share_of_all_machines(monkeypatch, precision, dtype):
    asked = []

    def peak(device, kind):
        asked.append(kind)
        return 1e12

    monkeypatch.setattr(throughput, "peak_flops", peak)
    decoder = Decoder(11, dim=16, depth=3)
    module = SimpleNamespace(decoder=decoder, device=torch.device("cpu"))
    trainer = SimpleNamespace(precision=precision, world_size=4)
    assert throughput._share_of_a_token(trainer, module, 7) == training_flops(decoder, 7) / 4e12
    assert asked == [dtype]
    assert throughput._share_of_a_token(trainer, SimpleNamespace(device=torch.device("cpu")), 7) == 0.0


def test_a_run_that_lasts_shows_its_use_of_the_machine(fresh, monkeypatch):
    monkeypatch.setattr(throughput, "SETTLED", -1.0)
    assert main(["fit", "-c", "tiny.yaml"]) == 0
    assert all(0 < float(row["mfu"]) < 1 and float(row["step_ms"]) > 0 for row in rows("runs/tiny/0"))
