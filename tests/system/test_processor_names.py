"""Names of processors."""

import platform
from pathlib import Path

import pytest
import torch

from lightning_xt.system.processor_names import name_processors

CPUINFO = (
    "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 167\nmodel name\t: A CPU\nstepping\t: 1\n\n"
    "processor\t: 1\nmodel name\t: B\n"
)


def test_kinds_of_one_name_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert name_processors(tmp_path) == (platform.processor() or platform.machine())
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO)
    assert name_processors(tmp_path) == "A CPU (6/167/1)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    assert name_processors(tmp_path) == "A CPU (6/167/1), A GPU"
