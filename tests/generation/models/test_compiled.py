"""Compiled steps, in a separate process: the run-time checks of shapes in the tests cannot be traced."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import FailOnRecompileLimitHit

from lightning_xt.generation.engine import generate
from lightning_xt.generation.models.compiled import Compiled
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention

SCRIPT = Path(__file__).parents[2] / "compiled_steps.py"


@pytest.mark.parametrize(
    ("backend", "names"),
    [
        ("eager", ["context"]),
        pytest.param("eager", [], marks=pytest.mark.slow),
        pytest.param("inductor", [], marks=pytest.mark.slow),
    ],
)
def test_compiled_steps_give_the_same_tokens_and_compile_once(backend: str, names: list[str]) -> None:
    call = [sys.executable, SCRIPT, backend, *names]
    run = subprocess.run(call, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    count = len(names) or 8
    assert (
        run.stdout.count("stays close") == 5
        and run.stdout.count("agrees") == count
        and f"{count} variants" in run.stdout
    )


def test_steps_beyond_the_limit_of_programs_run_as_they_are(monkeypatch, caplog) -> None:
    given = []

    def refuse(*args: object) -> None:
        raise FailOnRecompileLimitHit

    def compile(
        step: object, *, fullgraph: bool, options: dict[str, object], recompile_limit: int | None = None
    ) -> object:
        given.append(recompile_limit)
        return refuse

    monkeypatch.setattr(torch, "compile", compile)
    # The run-time checks of shapes in the tests wrap the step.
    monkeypatch.setattr("lightning_xt.generation.models.compiled._copy_step", lambda decoder, name: decoder.step)
    decoder = Decoder(20, dim=8, depth=2, attention=partial(Attention, heads=2)).double()
    model, prompt = Compiled(decoder), torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert given == [64, 64], "torch's own limit is 8"
    found = [generate(each, prompt, 9, seed=1, temperature=2.0) for each in (decoder, model, model)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert [each.message for each in caplog.records] == [
        "a decode step has 64 compiled programs; others run as they are"
    ]
