"""Formats of checkpoints."""

import pytest
import torch

from lightning_xt.checkpoints import migrations
from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.migrations import CHECKPOINT_FORMAT, MIGRATIONS, migrate
from lightning_xt.system.messages import explain_error


def test_migrations_lead_from_an_earlier_format_to_the_next():
    assert set(MIGRATIONS) <= set(range(1, CHECKPOINT_FORMAT))


@pytest.mark.parametrize("contents", [{}, {"state_dict": {}}, {"lightning_xt": None}, {"lightning_xt": {}}])
def test_files_of_other_programs_have_no_format(contents):
    before = dict(contents)
    migrate(contents)
    assert contents == before


@pytest.mark.parametrize("found", [1, CHECKPOINT_FORMAT + 1, 0, "1", True, None, 1.5, [2]])
def test_another_format_is_refused(found, tmp_path):
    torch.save({"lightning_xt": {"format": found, "version": "9.0"}}, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match=r"it was written by version 9\.0: use that version, or train again") as raised:
        Checkpoint(tmp_path / "odd.ckpt")
    assert explain_error(raised.value).startswith(f"the checkpoint has format {found!r}, but lightning-xt 0.1.0 reads ")


def test_a_migration_has_its_place(monkeypatch):
    def rename(contents):
        contents["state_dict"] = {"new": contents["state_dict"]["old"]}

    monkeypatch.setattr(migrations, "MIGRATIONS", {1: rename})
    contents = {"lightning_xt": {"format": 1}, "state_dict": {"old": 5}}
    migrate(contents)
    assert contents == {"lightning_xt": {"format": CHECKPOINT_FORMAT}, "state_dict": {"new": 5}}
    migrate(contents)
    assert contents["state_dict"] == {"new": 5}
