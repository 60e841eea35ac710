"""Links in a stranger's run folder: row S14 of the list of reported cases."""

import os
from pathlib import Path

import pytest

from lightning_xt.cli import main
from lightning_xt.commands.options.output_files import check_output
from lightning_xt.data.files.download import _PartialFile
from lightning_xt.system.files import replace_file
from lightning_xt.system.messages import UserError

RUN = Path("runs/tiny/0")
RESUME = ["fit", "-c", str(RUN / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", "8"]
LOGS = ("samples.txt", "metrics.csv")


@pytest.fixture
def precious(trained: Path) -> Path:
    file = trained / "precious"
    file.write_text("precious\n")
    return file


def link(path: Path, target: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
    path.symlink_to(target)


def test_cases_s14_files_of_a_run_that_are_links_are_not_followed(precious: Path) -> None:
    parts = [f".{name}.part" for name in ("config.fit.0.yaml", *LOGS)]
    for name in (*LOGS, *parts, "checkpoints/.last.ckpt.part", "checkpoints/.best.ckpt.part"):
        link(RUN / name, precious)
    assert main(RESUME) == 0
    assert precious.read_text() == "precious\n"
    for name in (*LOGS, "checkpoints/last.ckpt", "config.fit.0.yaml"):
        assert (RUN / name).is_file(), name
        assert not (RUN / name).is_symlink(), name
    for name in LOGS:
        assert (RUN / f"{name}.damaged.0").is_symlink(), name


@pytest.mark.parametrize("name", ["checkpoints", ".lock"])
def test_cases_s14_a_run_writes_into_its_own_folder(
    name: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = trained / "elsewhere"
    if name == "checkpoints":
        (RUN / name).rename(elsewhere)
    else:
        elsewhere.write_text("precious\n")
    before = sorted(elsewhere.iterdir()) if elsewhere.is_dir() else elsewhere.read_text()
    (RUN / name).symlink_to(elsewhere)
    assert main(RESUME) == 2
    error = capsys.readouterr().err
    assert "is a link, and a run writes into its own folder only; replace it by what it points to" in error
    assert before == (sorted(elsewhere.iterdir()) if elsewhere.is_dir() else elsewhere.read_text())


def test_cases_s14_parts_of_predictions_and_downloads(precious: Path) -> None:
    link(Path(".out.jsonl.part0"), precious)
    link(Path(".out.jsonl.part"), precious)
    command = ["predict", "-c", str(RUN / "config.yaml"), "--ckpt_path", "last", "--output", "out.jsonl"]
    assert main([*command, "--data.predict_prompts", "prompts.txt"]) == 0
    assert len(Path("out.jsonl").read_text().splitlines()) == 3
    partial = _PartialFile(Path("part"), Path("tag"))
    link(partial.part, precious)
    partial.tag.write_text("http://host/file\n1\n")
    assert partial.read_version("http://host/file") is None
    assert precious.read_text() == "precious\n"


def test_cases_s14_a_replaced_file_never_goes_through_a_link(precious: Path) -> None:
    link(Path(".new.part"), precious)
    with replace_file(Path("new")) as file:
        file.write(b"new")
    assert Path("new").read_bytes() == b"new"
    assert precious.read_text() == "precious\n"


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"), replace_file(pipe):
        pass
    with pytest.raises(UserError, match=r"--output .*pipe cannot be written \(it is not a regular file\); name"):
        check_output("--output", pipe)
    assert pipe.is_fifo() and [*tmp_path.iterdir()] == [pipe]
