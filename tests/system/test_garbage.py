"""Garbage collection pauses while modules are imported, and passes over them afterwards."""

import gc
import sys

import pytest

from lightning_xt.system.garbage import freeze_imported, pause_garbage_collection


def test_collection_pauses_and_returns_as_it_was():
    assert gc.isenabled()
    with pytest.raises(KeyError), pause_garbage_collection():
        raise KeyError(gc.isenabled())
    assert gc.isenabled()
    gc.disable()
    try:
        with pause_garbage_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_first_imports_are_frozen_and_no_others(monkeypatch):
    pytest.importorskip("lightning.pytorch")
    frozen = gc.get_freeze_count()
    with freeze_imported():
        assert not gc.isenabled()
    assert gc.get_freeze_count() == frozen
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    try:
        with freeze_imported():
            kept = [object]
        assert gc.get_freeze_count() > frozen and kept
    finally:
        gc.unfreeze()
