"""Checkpoint files: their contents, and messages for files that are damaged or hold something else."""

import collections
import os
import pickle
import zipfile

import pytest
import torch

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.system.messages import explain_error


class Program:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.fixture
def intact(tmp_path):
    file = tmp_path / "whole.ckpt"
    torch.save({"global_step": 7, "state_dict": {"weight": torch.arange(5000)}}, file)
    return file


def refuse(file):
    with pytest.raises(ValueError, match="cannot be read as a checkpoint") as raised:
        Checkpoint(file)
    sentence = explain_error(raised.value)
    assert sentence.startswith(f"{file} cannot be read as a checkpoint: ")
    assert len(sentence.splitlines()) == 1
    return sentence.removeprefix(f"{file} cannot be read as a checkpoint: ")


def test_reads_what_was_saved(intact):
    read = Checkpoint(str(intact))
    assert (read.path, read.step) == (intact, 7)
    assert torch.equal(read.weights["weight"], torch.arange(5000))
    assert (read.module_class, read.config, read.tokenizers, read.metadata) == (None, {}, {}, {})


def test_reads_what_a_run_saved(tmp_path):
    tokenizers = {"text": {"class_path": "Bytes", "init_args": {}}}
    own = {"format": 2, "kind": "Mine", "tokenizers": tokenizers}
    torch.save({"lightning_xt": own, "hyper_parameters": {}}, tmp_path / "x.ckpt")
    read = Checkpoint(tmp_path / "x.ckpt")
    assert (read.module_class, read.config, read.tokenizers) == ("Mine", {}, tokenizers)
    torch.save({"lightning_xt": own, "hyper_parameters": {"_class_path": "my.Mine", "dim": 3}}, tmp_path / "x.ckpt")
    read = Checkpoint(tmp_path / "x.ckpt")
    assert (read.module_class, read.config) == ("my.Mine", {"dim": 3})


def test_a_released_file_is_closed_and_read_again_on_demand(intact, monkeypatch):
    read = Checkpoint(intact)
    read.release()
    maps = f"/proc/{os.getpid()}/maps"
    if os.path.exists(maps):
        with open(maps) as file:
            assert str(intact) not in file.read()
    assert read.step == 7


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"global_step": 7}, "it has no state_dict"),
        ({"state_dict": {}}, "it has no global_step"),
        ({"state_dict": [1], "global_step": 7}, "its state_dict holds more than weights"),
        ({"state_dict": {"a": 1}, "global_step": 7}, "its state_dict holds more than weights"),
        ({"state_dict": {}, "global_step": -1}, "its global_step is -1, not a number of steps"),
        ({"state_dict": {}, "global_step": "six"}, "its global_step is 'six', not a number of steps"),
    ],
)
def test_a_mapping_that_is_not_of_a_run(contents, said, tmp_path):
    torch.save(contents, tmp_path / "x.ckpt")
    read = Checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=f"x.ckpt is not a checkpoint of a run: {said}; give a .ckpt file that fit"):
        assert read.weights is None or read.step


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off(intact, share):
    content = intact.read_bytes()
    intact.write_bytes(content[: max(2, int(len(content) * share))])
    assert refuse(intact).startswith("its end is missing")


def test_an_empty_file(intact):
    intact.write_bytes(b"")
    assert refuse(intact).startswith("it is empty")


@pytest.mark.parametrize("content", [b"no checkpoint\n", bytes(5000), pickle.dumps({"global_step": 7})])
def test_a_file_of_something_else(intact, content):
    intact.write_bytes(content)
    assert refuse(intact) == "it is not in the format of torch.save; give a .ckpt file of a run"


def test_an_archive_of_something_else(intact):
    with zipfile.ZipFile(intact, "w") as archive:
        archive.writestr("folder/letter.txt", "hello")
    assert refuse(intact).startswith("it is a zip archive of other files")
    with zipfile.ZipFile(intact, "a") as archive:
        archive.writestr("folder/data.pkl", b"")
        archive.writestr("folder/constants.pkl", b"")
    assert refuse(intact).startswith("it is a TorchScript program")


def test_a_program_in_a_checkpoint(tmp_path):
    file = tmp_path / "program.ckpt"
    torch.save({"global_step": 7, "callbacks": Program()}, file)
    assert refuse(file).startswith(f"it holds {os.system.__module__}.system besides tensors and plain values, and load")


@pytest.mark.parametrize("length", [1, 10, 60])
def test_damage_in_the_middle(intact, length):
    content = bytearray(intact.read_bytes())
    at = content.index(b"global_step")
    content[at : at + length] = b"\xff" * length
    intact.write_bytes(content)
    assert refuse(intact) == "its contents are damaged; give another checkpoint, or copy it again"


def test_a_damaged_name_of_a_class(intact):
    content = bytearray(intact.read_bytes())
    at = content.index(b"_rebuild_tensor_v2")
    content[at : at + 8] = b"_rebuilt"
    intact.write_bytes(content)
    assert refuse(intact).startswith("its contents are damaged")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3)], ids=["list", "tensor"])
def test_a_file_without_names(tmp_path, content):
    file = tmp_path / "other.ckpt"
    torch.save(content, file)
    assert refuse(file) == f"it holds a {type(content).__name__}, not a mapping; give a .ckpt file of a run"


def test_any_mapping_is_read(tmp_path):
    torch.save(collections.OrderedDict(weight=torch.ones(3)), tmp_path / "weights.ckpt")
    assert list(Checkpoint(tmp_path / "weights.ckpt").contents) == ["weight"]


def test_what_cannot_be_opened(tmp_path):
    assert refuse(tmp_path / "nope.ckpt").startswith("No such file or directory; give")
    assert refuse(tmp_path).startswith("Is a directory; give")


def test_contents_of_another_kind(tmp_path):
    file = tmp_path / "in.ckpt"
    torch.save({"global_step": 7, "state_dict": {}, "lightning_xt": [1]}, file)
    assert refuse(file) == "its lightning_xt is a list, not a mapping; give a .ckpt file that fit has saved"
