"""Uninterrupted run that the cluster's runs are compared with."""

from pathlib import Path

import pytest
from cluster.jobs import fit, write_inputs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finish a run of two processes that Lightning starts, without a signal."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_inputs(folder)
    fit(folder / "two", "--name=whole", "--trainer.devices=2", "--trainer.strategy=ddp")
    return folder / "two/runs/whole/0"
