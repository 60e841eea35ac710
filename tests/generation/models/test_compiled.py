"""Compiled steps, in a process of their own: the run-time checks of shapes that tests switch on cannot be traced."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "compiled_steps.py"


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_steps_give_the_same_tokens_and_compile_once(backend: str) -> None:
    run = subprocess.run([sys.executable, SCRIPT, backend], capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("agrees") == 7 and "7 variants" in run.stdout
