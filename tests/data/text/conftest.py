"""A data folder for tests of downloaded corpora."""

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty data folder; the local server is reached without a proxy."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(folder))
    monkeypatch.setenv("no_proxy", "*")
    return folder
