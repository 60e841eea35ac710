"""Fixtures of the tests of exchange."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import dynamic_module_utils


@pytest.fixture(autouse=True)
def own_modules_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the copies of remote files that transformers makes out of the user's folder."""
    folder: Path = tmp_path_factory.mktemp("modules")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]
