"""Compiled steps, in a separate process: the run-time checks of shapes in the tests cannot be traced."""

import subprocess
import sys
from pathlib import Path

import pytest

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
