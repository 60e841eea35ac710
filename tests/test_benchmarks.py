"""The benchmarks run at tiny sizes and print one JSON object as their last line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = [
    "--model.compile=false",
    "--model.decoder.dim=16",
    "--model.decoder.depth=1",
    "--model.decoder.attention.heads=1",
]


def rows(tmp_path, script, *options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIGHTNING_XT_DATA": str(tmp_path)}
    command = [sys.executable, str(BENCHMARKS / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert set(said) == {"machine", "versions", "rows"}
    return said["rows"]


def train(tmp_path, *names):
    sizes = ["--dim=16", "--depth=1", "--heads=1", "--seq_len=16", "--batch_size=2"]
    slices = ["--eager", "--repeats=2", "--slices=2", "--steps=2"]
    return rows(tmp_path, "training.py", *sizes, *slices, "--rows", *names)


@pytest.mark.slow
def test_training_tells_the_trainer_from_the_bare_loop(tmp_path):
    found = train(tmp_path, "trainer_vs_bare", "data_wait_share", "reference_gpt", "gemm_gflops", "mfu")
    assert set(found) == {"trainer_vs_bare", "data_wait_share", "reference_gpt", "gemm_gflops", "mfu"}
    assert found["trainer_vs_bare"]["repeats"] == 2 and found["reference_gpt"]["repeats"] == 4
    assert all(row["value"] > 0 for row in found.values())
    # Tables for 256 bytes, a layer of 12 * 16 * 16 and three norms; the head is shared, positions are learned.
    assert found["mfu"]["parameters"]["reference_gpt"] == 256 * 16 + 16 * 16 + 12 * 16 * 16 + 3 * 16
    assert found["mfu"]["parameters"]["ours"] == 2 * 256 * 16 + 12 * 16 * 16 + 3 * 16


@pytest.mark.slow
def test_training_measures_x_transformers(tmp_path):
    pytest.importorskip("x_transformers")
    found = train(tmp_path, "vs_xt_shipped", "vs_xt_flash_bf16", "vs_xt_compiled")
    for row in found.values():
        assert row["theirs"] > 0 and row["ours"] > 0 and row["repeats"] == 4
        assert row["unit"] == "times their tokens/s"


@pytest.mark.slow
def test_quality_compares_ours_with_the_reference(tmp_path):
    text = tmp_path / "tinyshakespeare" / "input.txt"
    text.parent.mkdir()
    text.write_bytes(b"to be or not to be, " * 200)
    legs = ["--legs", "ours", "reference_gpt"]
    found = rows(tmp_path, "quality.py", "--seeds=2", "--steps=4", "--evaluations=2", *legs, "--", *TINY)
    assert set(found) == {"val_loss", "reference_val_loss", "bytes_to_reference"}
    for name in ("val_loss", "reference_val_loss"):
        row = found[name]
        assert row["repeats"] == len(row["curves"]) == 2 and row["evaluations"] == 2 and row["steps"] == 4
        assert row["curves"][0][-1][1] == row["bytes_seen"] == 2 * row["curves"][0][0][1]
        assert row["value"] < 5.6
    # Windows of 64 bytes, 12 in a step.
    assert found["reference_val_loss"]["bytes_seen"] == 4 * 12 * 64


@pytest.mark.slow
def test_quality_without_its_corpus_says_so(tmp_path):
    assert rows(tmp_path, "quality.py", "--preset=shakespeare_cpu") == {}
