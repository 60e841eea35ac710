"""The soak distinguishes growth from variation."""

import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak

    return soak


@pytest.fixture
def looks(soak):
    """Return ten minutes at ten steps a second, with memory and files that come and go."""
    return [soak.Look(k / 2, 5 * k, 300.0 + k * 7 % 23, 260.0, 20 + k * 3 % 11, 8, 4) for k in range(1200)]


def test_what_comes_and_goes_is_flat(soak, looks):
    row = soak.row(looks)
    assert row["flat"] is True
    assert (row["minutes"], row["steps"]) == (9.99, 5995)
    assert row["memory_mb"]["start"] == pytest.approx(311, abs=0.5) == row["memory_mb"]["end"]
    assert abs(row["value"]) < 2 * row["memory_mb"]["per_hour"][1]
    assert row["files"]["start"] == [20, pytest.approx(25, abs=0.1), 30]


@pytest.mark.parametrize(
    ("name", "leak"),
    [("memory", 1e-3), ("child_memory", 1e-3), ("files", 0.01), ("threads", 0.01), ("children", 0.01)],
)
def test_what_grows_is_not(soak, looks, name, leak):
    """Growth is found from a kilobyte a step, or a handle in a hundred counts."""
    kind = type(getattr(looks[0], name))
    grown = [replace(each, **{name: getattr(each, name) + kind(leak * each.step)}) for each in looks]
    row = soak.row(grown)
    assert row["flat"] is False
    assert [each for each in row if isinstance(row[each], dict) and not row[each]["flat"]] == [
        f"{name}_mb" if "memory" in name else name
    ]
    if "memory" in name:
        assert row[f"{name}_mb"]["per_1000_steps"][0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", ["language", "translation"])
def test_cases_s17_nothing_waits_for_the_collector(kind, soak, tmp_path, monkeypatch):
    """Neither a generation by any kind of method nor a validation leaves a tensor that refers to itself."""
    import uncollected

    def count_tensors(work, times):
        counts = []
        for number in range(2 * times):
            work(number)
            if number in (times - 1, 2 * times - 1):
                counts.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
        return counts

    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path))
    monkeypatch.setattr(uncollected, "repeat", count_tensors)
    monkeypatch.setattr(uncollected, "PROMPTS", ["a"])
    try:
        # Once with each method, and once again.
        counts = uncollected.measure(kind, len(uncollected.METHODS), tmp_path)
    finally:
        gc.enable()
    for name, (first, last) in counts.items():
        assert first == last, name


def test_growth_is_of_the_memory_after_the_tenth_time(soak, monkeypatch):
    import uncollected

    looks = [100 + n for n in range(9)] + [200.0, 210, 205, 209]
    monkeypatch.setattr(uncollected, "anonymous_memory", lambda process: looks.pop(0))
    assert uncollected.repeat(lambda number: None, 13) == {"after_10": 200.0, "most": 210.0, "growth": 5.0}


@pytest.mark.slow
def test_it_counts_without_the_collector(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--times=12", "--settings", "translation_uncollected"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])["rows"]["translation_uncollected"]
    assert row["flat"] is True and row["times"] == 12 and row["validations"]["after_10"] > 0


@pytest.mark.slow
def test_it_runs(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--minutes=0.2", "--settings", "language_2_workers"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])["rows"]["language_2_workers"]
    assert row["steps"] > 0 and row["children"]["end"][0] >= 2
