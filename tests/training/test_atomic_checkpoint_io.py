"""Checkpoints that cannot be written: the one before survives, and is found."""

import ast
import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

import lightning_xt
from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.checkpoint_room import count_bytes
from lightning_xt.system.messages import explain_error
from lightning_xt.training.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_xt.training.callbacks.disk_space_check import DiskSpaceCheck
from lightning_xt.training.callbacks.last_checkpoint import LastCheckpoint
from lightning_xt.training.callbacks.run_folder import RunFolder

Disk = namedtuple("Disk", "total used free")
MB = 1_000_000


def content(step):
    return {"global_step": step, "state_dict": {"weight": torch.full((250_000,), float(step))}}


@pytest.fixture
def last(tmp_path):
    """Write a checkpoint of step 1."""
    file = tmp_path / "run" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1), file)
    return file


def assert_intact(last):
    assert Checkpoint(last).step == 1
    assert torch.equal(Checkpoint(last).weights["weight"], torch.ones(250_000))
    return [file.name for file in last.parent.iterdir()] == ["last.ckpt"]


def assert_refused(last, said):
    with pytest.raises(OSError, match=said) as raised:
        AtomicCheckpointIO().save_checkpoint(content(2), last)
    sentence = explain_error(raised.value)
    assert sentence is not None
    assert f"{last} is unchanged; make room, or make the folder writable, then resume with" in sentence
    assert assert_intact(last)


def test_a_full_disk(last, monkeypatch):
    """A file beyond a size limit is refused, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB // 2, before[1]))
    try:
        assert_refused(last, r"cannot be written \(File too large\)")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_without_room_is_not_begun_with(last, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(9 * MB, 9 * MB, MB - 1))
    monkeypatch.setattr(torch, "save", None)
    assert_refused(last, r"cannot be written \(it takes 1\.0 MB, and there is room for 1\.0 MB\)")


def test_the_next_that_will_not_fit_is_reported_once(last, monkeypatch):
    free = iter([MB, MB - 1, MB, MB - 1])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(9 * MB, 0, next(free)))
    plugin = AtomicCheckpointIO()
    with pytest.warns(UserWarning, match=r"last\.ckpt takes 1\.0 MB and .* will not fit; make room"):
        plugin.save_checkpoint(content(2), last)
    plugin.save_checkpoint(content(3), last)
    assert Checkpoint(last).step == 3


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(last):
    last.parent.chmod(0o555)
    try:
        assert_refused(last, r"cannot be written \(Permission denied\)")
    finally:
        last.parent.chmod(0o755)


def test_a_folder_that_refuses_a_file(last, monkeypatch):
    """A folder may refuse a file even for root, as a read-only disk does."""

    def refuse(path, *args):
        raise OSError(30, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(OSError, match=r"cannot be written \(Read-only file system\); .*is unchanged"):
            AtomicCheckpointIO().save_checkpoint(content(2), last)
    assert assert_intact(last)


def write_slowly(last, begun):
    """Save a checkpoint, and stop in the middle of the file."""
    save = torch.save

    def half(checkpoint, out):
        save(checkpoint, out)
        out.truncate(MB // 2)
        begun.set()
        time.sleep(60)

    torch.save = half
    AtomicCheckpointIO().save_checkpoint(content(2), last)


def test_a_process_that_is_killed_while_it_saves(last):
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    child = context.Process(target=write_slowly, args=(last, begun))
    child.start()
    assert begun.wait(30)
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    part = last.with_name(".last.ckpt.part")
    assert part.is_file()
    assert not assert_intact(last)
    # Its unfinished file disturbs nothing.
    AtomicCheckpointIO().save_checkpoint(content(3), last)
    assert Checkpoint(last).step == 3
    assert not part.exists()


@pytest.mark.parametrize(("damage", "said"), [(slice(0, 900_000), "its end is missing"), (slice(0, 0), "it is empty")])
def test_resuming_from_a_file_that_was_cut_off(damage, said, last):
    last.write_bytes(last.read_bytes()[damage])
    with pytest.raises(ValueError, match=f"last.ckpt cannot be read as a checkpoint: {said}"):
        AtomicCheckpointIO().load_checkpoint(last)


def test_the_size_of_a_content():
    table = torch.zeros(10)
    assert count_bytes({"a": table, "b": [table[:5], {"c": torch.zeros(3, dtype=torch.float64)}], "d": 5}) == 40 + 24


class Tiny(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1000, 250, bias=False)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


@pytest.mark.parametrize(
    ("keep", "free", "warns"), [(0, 6, False), (0, 5, True), (3, 15, False), (3, 14, True)], ids=str
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*number of training batches")
def test_a_run_whose_checkpoints_will_not_fit_warns_when_it_begins(keep, free, warns, tmp_path, monkeypatch):
    """A run warns before its checkpoints of 3 MB (weights and two means), of which two exist while one is written."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(99 * MB, 0, free * MB))
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            RunFolder(tmp_path / "runs", None, lambda file: file.touch(), ()),
            LastCheckpoint(1, keep),
            DiskSpaceCheck(keep),
        ],
    )
    with expect_warning(warns, keep) as found:
        trainer.fit(Tiny(), torch.utils.data.DataLoader(torch.ones(4, 1000), batch_size=2))
    assert (found is not None) == warns


def expect_warning(warns, keep):
    count = 2 + keep
    wanted = rf"/runs/0 has room for .* will take about {3 * count}\.0 MB, {count} of 3\.0 MB, .* included: make room"
    return pytest.warns(UserWarning, match=wanted) if warns else contextlib.nullcontext()


def test_all_that_is_loaded_is_plain_values():
    """The package unpickles nothing that could run code."""
    calls = 0
    for path in Path(lightning_xt.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                calls += 1
                assert {each.arg: ast.unparse(each.value) for each in node.keywords}.get("weights_only") == "True", path
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load":
                calls -= 1
    # The function is called where it is named, and never passed on.
    assert calls == 0
