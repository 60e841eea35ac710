"""What the cluster's ways to run are compared with."""

from pathlib import Path

import pytest
from cluster.jobs import fit, write_inputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two processes that Lightning started, and nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    write_inputs(folder)
    fit(folder / "two", "--name=whole", "--trainer.devices=2", "--trainer.strategy=ddp")
    return folder / "two/runs/whole/0"
