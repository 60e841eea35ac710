"""Starting points of runs, and files on disk that survive failures."""

import errno
import fcntl
import json
import math
import os
import re
import resource
import shutil
import signal
import time
import zipfile
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
import warm
import yaml
from filelock import FileLock
from tiny_run import list_names, load_weights, read_rows

from lightning_xt.checkpoints.runs import find_run
from lightning_xt.cli import main
from lightning_xt.training.callbacks import run_folder
from lightning_xt.training.callbacks.preemption import _describe_saved

STILL = ["--model.optimizer.init_args.lr", "0", "--trainer.max_steps", "3"]
"""Three steps that change no weight."""


def read_contents(folder="runs"):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def load(run, kind="last"):
    return torch.load(f"{run}/checkpoints/{kind}.ckpt", weights_only=True)


def test_a_run_starts_from_the_weights_of_another_and_nothing_else(trained, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--name", "next", "--init_from", "runs/tiny/0", *STILL]) == 0
    assert "run=runs/next/0" in capsys.readouterr().out
    before, after = load("runs/tiny/0", "best"), load("runs/next/0")
    assert all(torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in before["state_dict"])
    assert before["global_step"] == 6
    assert after["global_step"] == 3
    assert {state["step"].item() for state in after["optimizer_states"][0]["state"].values()} == {3}
    assert after["TextFiles"]["samples_seen"] == 6
    assert [row["step"] for row in read_rows("runs/next/0")] == ["1", "2", "3"]


def test_without_a_config_the_weights_bring_theirs(trained, capsys):
    assert main(["fit", "--init_from", "runs/tiny", *STILL]) == 0
    assert "run=runs/tiny/1" in capsys.readouterr().out
    assert main(["fit", "--init_from", "runs/tiny/0/checkpoints/last.ckpt", "--name", "next", *STILL]) == 0
    assert "run=runs/next/0" in capsys.readouterr().out
    before, after = (load_weights(f"runs/{name}/0") for name in ("tiny", "next"))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_run_that_started_from_weights_resumes_without_them(trained):
    start = ["fit", "-c", "tiny.yaml", "--name", "next", "--init_from", "start.ckpt"]
    Path("start.ckpt").write_bytes(Path("runs/tiny/0/checkpoints/last.ckpt").read_bytes())
    # A job script runs this command again after each stop.
    assert main([*start, "--ckpt_path", "last", "--trainer.max_steps", "3"]) == 0
    Path("start.ckpt").unlink()
    assert main([*start, "--ckpt_path", "last", "--trainer.max_steps", "4"]) == 0
    assert main(["fit", "-c", "runs/next/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "5"]) == 0
    assert list_names("runs/next") == {"0"}
    assert load("runs/next/0")["global_step"] == 5


def test_weights_of_another_shape_are_refused(trained, capsys):
    before = read_contents()
    assert main(["fit", "-c", "tiny.yaml", "--init_from", "runs/tiny", "--model.decoder.dim", "16"]) == 2
    told = capsys.readouterr()
    assert "--model.decoder.dim is 16 here, 8 in the checkpoint" in told.out
    sentence = "best.ckpt holds a LanguageModel whose weights do not fit this command's LanguageModel: "
    assert sentence in told.err
    assert "of another shape, such as decoder.head.to_logits.weight (256, 8) there, (256, 16) here; give" in told.err
    assert read_contents() == before
    assert main(["fit", "-c", "tiny.yaml", "--init_from", "runs/tiny", "--model.decoder.depth", "2"]) == 2
    assert "missing there, such as decoder.stack." in capsys.readouterr().err


def test_checkpoints_name_their_origin(trained):
    own = load("runs/tiny/0")["lightning_xt"]
    assert own["kind"] == "LanguageModel"
    assert own["versions"]["torch"] == torch.__version__
    assert own["data"]["class_path"] == "lightning_xt.data.text.text_files.TextFiles"
    assert len(own["data"]["hash"]) == 64
    assert own["metrics"]["val/loss"] == pytest.approx(float(read_rows()[-1]["val/loss"]), abs=1e-6)
    assert own["tokenizers"]["text"]["init_args"] == {"separator": None}


def test_other_data_than_the_checkpoint_saw_are_reported(trained, caplog):
    same = ["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]
    assert main(same) == 0
    assert "the data are not those of the checkpoint" not in caplog.text
    Path("corpus.txt").write_text("the quick brown fox jumps over the lazy cat\n" * 20)
    assert main(same) == 0
    assert "the data differ from the checkpoint's: their hash is " in caplog.text


def damage(kind):
    """Write a file that looks like a checkpoint."""
    whole = Path("runs/tiny/0/checkpoints/last.ckpt")
    file = Path("runs/tiny/0/checkpoints/damaged.ckpt")
    content = whole.read_bytes()
    if kind == "weights":
        torch.save(load_weights(), file)
    else:
        file.write_bytes({"truncated": content[: len(content) // 2], "text": b"no checkpoint\n", "empty": b""}[kind])
    return str(file)


PARTS = {
    "truncated": "its end is missing",
    "text": "it is not in the format of torch.save",
    "empty": "it is empty",
    "weights": "is not a checkpoint of a run: it has no state_dict",
}


@pytest.mark.parametrize(
    ("command", "kind"),
    [("fit", kind) for kind in PARTS]
    + [(command, "truncated") for command in ("init_from", "validate", "test", "predict", "generate")],
)
def test_a_file_that_is_not_a_checkpoint_is_refused(trained, capsys, command, kind):
    file = damage(kind)
    before = read_contents()
    config = ["-c", "tiny.yaml"]
    arguments = {
        "fit": ["fit", *config, "--ckpt_path", file],
        "init_from": ["fit", *config, "--init_from", file],
        "predict": [
            "predict",
            *config,
            "--ckpt_path",
            file,
            "--output",
            "out",
            "--data.predict_prompts",
            "prompts.txt",
        ],
        "generate": ["generate", file, "--prompt", "a"],
    }
    assert main(arguments.get(command, [command, *config, "--ckpt_path", file])) == 2
    told = capsys.readouterr().err
    assert PARTS[kind] in told
    assert told.count("\n") == 1
    assert "damaged.ckpt" in told
    assert read_contents() == before


def test_a_checkpoint_of_another_model_is_refused(trained, capsys):
    before = read_contents()
    assert main(["validate", "-c", "tiny.yaml", "--ckpt_path", "runs/tiny/0", "--model.decoder.dim", "16"]) == 2
    assert "holds a LanguageModel whose weights do not fit this command's LanguageModel" in capsys.readouterr().err
    assert read_contents() == before


def run_limited(arguments, size):
    """Run the command in a process that cannot write files beyond a size, as if the disk were full."""
    return warm.run(arguments, limits=[(resource.RLIMIT_FSIZE, size)])


def test_without_space_the_checkpoint_before_survives(trained):
    last = Path("runs/tiny/0/checkpoints/last.ckpt")
    before = last.read_bytes()
    size = len(before) // 2
    resumed = ["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "20"]
    resumed += ["--validate_every", "null"]
    done = run_limited(resumed, size)
    assert done.returncode == 2, done.stderr
    assert "last.ckpt cannot be written (File too large); runs/tiny/0/checkpoints/last.ckpt is unchanged" in done.stderr
    assert "Traceback" not in done.stderr
    assert last.read_bytes() == before
    assert {path.name for path in last.parent.iterdir()} == {"best.ckpt", "last.ckpt"}
    # The disk has room again.
    assert main(resumed) == 0
    assert [int(row["step"]) for row in read_rows()] == list(range(1, 21))


def test_any_file_that_is_too_large_is_reported(fresh):
    # Neither the metrics nor TensorBoard's events fit.
    done = run_limited(["fit", "-c", "tiny.yaml", "--trainer.max_steps", "2000", "--validate_every", "null"], 20_000)
    assert done.returncode == 2, done.stderr
    assert "cannot be written (File too large); make room" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_limited(["fit", "-c", "tiny.yaml", "--name", "other"], 1000)
    assert done.returncode == 2, done.stderr
    assert "runs/other/0/config.yaml cannot be written (File too large); make room" in done.stderr
    assert list_names("runs") == {"tiny"}


def test_predictions_that_cannot_be_written_leave_the_file_before(trained):
    Path("out.jsonl").write_text("before\n")
    predict = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]
    done = run_limited([*predict, "--data.predict_prompts", "prompts.txt", "--output", "out.jsonl"], size=100)
    assert done.returncode == 2, done.stderr
    assert "--output out.jsonl cannot be written (File too large)" in done.stderr
    assert Path("out.jsonl").read_text() == "before\n"
    assert {path.name for path in Path().glob("*out*")} == {"out.jsonl"}


def test_a_run_folder_that_cannot_be_written(trained, capsys, monkeypatch):
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr("tempfile.TemporaryFile", Mock(side_effect=error))
    before = read_contents()
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]) == 2
    sentence = "the run folder runs/tiny/0 cannot be written (Read-only file system); make it writable, or start"
    assert sentence in capsys.readouterr().err
    assert main(["fit", "-c", "tiny.yaml", "--name", "other"]) == 2
    assert "the run folder runs/other/0 cannot be written" in capsys.readouterr().err
    assert read_contents() == before
    assert list_names("runs") == {"tiny"}


def test_a_run_that_cannot_be_written_can_be_measured(trained):
    before = read_contents()
    done = run_limited(["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"], size=10)
    assert done.returncode == 0, done.stderr
    assert "config.validate.0.yaml cannot be written (File too large)" in done.stderr
    assert read_contents() == before


def test_a_checkpoint_damaged_within_is_refused(trained, capsys):
    file = Path("runs/tiny/0/checkpoints/last.ckpt")
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(file.read_bytes())
    middle = largest.header_offset + largest.file_size // 2
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)
    for command in (["generate", str(file), "--prompt", "a"], ["fit", "-c", "tiny.yaml", "--init_from", str(file)]):
        assert main(command) == 2
        assert "last.ckpt cannot be read as a checkpoint: its contents are damaged" in capsys.readouterr().err


def test_where_weights_come_from_is_said_once(trained, capsys):
    before = read_contents()
    last = "runs/tiny/0/checkpoints/last.ckpt"
    assert main(["fit", "-c", "tiny.yaml", "--init_from", "runs/tiny", "--ckpt_path", last]) == 2
    assert "both say where the weights come from; give one" in capsys.readouterr().err
    assert main(["fit", "--init_from", "runs/tiny", "--ckpt_path", "last"]) == 2
    assert "with both, give -c FILE or omit one" in capsys.readouterr().err
    assert read_contents() == before


def test_a_run_is_trained_by_one_command_at_a_time(trained, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "ORPHANS", 0.1)
    resume = ["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]
    before = read_contents()
    with FileLock("runs/tiny/0/.lock"):
        assert main(resume) == 2
        assert "the run runs/tiny/0 is being trained by another process" in capsys.readouterr().err
    Path("runs/tiny/0/.lock").unlink(missing_ok=True)
    assert read_contents() == before
    assert main(resume) == 0
    assert ".lock" not in list_names("runs/tiny/0")


def test_cases_s11_the_holder_of_a_lock_on_a_disk_without_locks(trained, capsys, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(run_folder, "ORPHANS", 0.1)
    resume = ["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps"]

    def refuse(*_, **__):
        raise OSError(errno.ENOSYS, "no locks")

    lock = Path("runs/tiny/0/.lock")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        assert main([*resume, "7"]) == 0
        assert not lock.exists()
        lock.write_text("4711\nnode\x1b[2J\n")
        os.utime(lock, (time.time() - 600, time.time() - 600))
        assert main([*resume, "8"]) == 2
        error = capsys.readouterr().err
        assert (
            "the run runs/tiny/0 is being trained by process 4711 of the machine node\\x1b[2J, for 10 minutes so far, "
            in error
        )
        assert "as runs/tiny/0/.lock states; wait for it, or if it has ended there, remove that file" in error
        lock.unlink()
        assert main([*resume, "8"]) == 0
    # Other versions of the lock do not try the file.
    monkeypatch.setattr(run_folder.FileLock, "acquire", refuse)
    assert main([*resume, "9"]) == 0
    assert "runs/tiny/0/.lock cannot be locked ([Errno 38] no locks): train this run by one command" in caplog.text


def test_what_a_killed_run_leaves_running_is_waited_for(tmp_path):
    callback = run_folder.RunFolder(tmp_path, tmp_path, Mock(), loggers=())
    workers = FileLock(tmp_path / ".lock", thread_local=False)
    workers.acquire()
    ends = Timer(0.3, workers.release)
    ends.start()
    callback._reserve(tmp_path)
    ends.join()
    assert callback._lock.is_locked
    callback._release()
    assert not (tmp_path / ".lock").exists()


def test_a_run_that_was_stopped_does_not_say_that_it_is_done(fresh):
    # A validation stopped there has another message.
    options = ["--trainer.max_steps", "1000000", "--validate_every", "1000000", "--checkpoint_every", "2"]
    started = warm.Command(["fit", "-c", "tiny.yaml", *options], stderr="errors.txt")
    last, deadline = Path("runs/tiny/0/checkpoints/last.ckpt"), time.monotonic() + 60
    while not last.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    assert started.wait(60) == 75
    told = Path("errors.txt").read_text()
    assert re.search(r"stopped by SIGTERM after step \d+; resume with lightning-xt fit runs/tiny/0 --resume", told)


def test_predictions_replace_files_only(trained, capsys):
    predict = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]
    predict += ["--data.predict_prompts", "prompts.txt", "--output"]
    os.mkfifo("pipe")
    for output in ("pipe", "runs"):
        assert main([*predict, output]) == 2
        assert f"--output {output} is not a regular file" in capsys.readouterr().err
    assert Path("pipe").is_fifo()
    Path("kept.jsonl").touch()
    Path("link.jsonl").symlink_to("kept.jsonl")
    assert main([*predict, "link.jsonl"]) == 0
    assert Path("link.jsonl").is_symlink()
    assert len(Path("kept.jsonl").read_text().splitlines()) == 3
    assert {path.name for path in Path().glob(".*part*")} == set()


def test_a_name_that_is_not_text(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--data.path", "b\udcff.txt"]) == 2
    assert "b\\udcff.txt is not UTF-8; rename the file" in capsys.readouterr().err


def test_a_resumed_run_names_the_values_it_ignores(trained, capsys):
    resume = ["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]
    assert main([*resume, "--init_from", "runs/tiny"]) == 0
    told = capsys.readouterr().out
    assert "--init_from runs/tiny is not used: the run resumes from runs/tiny/0/checkpoints/last.ckpt" in told
    assert "last.ckpt is at step 6 and --trainer.max_steps is 6: nothing is left to train; give a larger" in told
    assert main([*resume, "--trainer.max_steps", "7"]) == 0
    assert "nothing is left to train" not in capsys.readouterr().out


def test_likely_slips_get_the_way_out(trained, capsys):
    for command, sentence in {
        "predict -c tiny.yaml --temperature 0.5": "did you mean --sampling.temperature?",
        "fit -c runs/tiny": "runs/tiny is a folder; give a config in it, such as runs/tiny/0/config.yaml",
        "fit --data StandardLibrary --data.path corpus.txt": "for --data.path give --data TextFiles",
    }.items():
        assert main(command.split()) == 2
        assert sentence in capsys.readouterr().err


SPELLINGS = {
    "absolute": lambda run: run.absolute(),
    "moved": lambda run: run.rename("elsewhere"),
    "copied": lambda run: Path(shutil.copytree(run, "runs/tiny/copy")),
    "linked": lambda run: link("linked", run),
}


def link(name, target):
    Path(name).symlink_to(target.absolute())
    return Path(name)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_cases_s6_the_best_is_known_however_the_run_is_spelled(spelling, trained):
    best = Path("runs/tiny/0/checkpoints/best.ckpt").read_bytes()
    run = SPELLINGS[spelling](Path("runs/tiny/0"))
    # Every validation from here on is worse.
    worse = ["--trainer.max_steps", "8", "--validate_every", "1", "--model.optimizer.lr", "30"]
    worse += ["--model.schedule", "null", "--trainer.gradient_clip_val", "null"]
    assert main(["fit", "-c", f"{run}/config.yaml", "--ckpt_path", "last", *worse]) == 0
    assert load(run)["global_step"] == 8
    assert (run / "checkpoints/best.ckpt").read_bytes() == best
    losses = [float(row["val/loss"]) for row in read_rows(run) if row["val/loss"]]
    assert len(losses) == 4 and min(losses[-2:]) > min(losses)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_cases_r1_a_run_is_the_same_under_any_name_of_its_folder(spelling, trained, capsys):
    shutil.copytree("runs/tiny/0", "runs/tiny/7")
    newest = read_contents("runs/tiny/7")
    run = SPELLINGS[spelling](Path("runs/tiny/0"))
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    # Weights that distinguish the run from the newest of its name.
    last["state_dict"] = {name: torch.zeros_like(value) for name, value in last["state_dict"].items()}
    torch.save(last, run / "checkpoints/last.ckpt")
    for given in (["-c", f"{run}/config.yaml", "--ckpt_path", "last"], ["--ckpt_path", f"{run}/checkpoints/last.ckpt"]):
        assert main(["validate", *given]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"run={run}" and lines[-1].startswith("val/bits_per_byte=8.00000")
    assert main(["fit", "-c", f"{run}/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "7"]) == 0
    assert f"run={run}" in capsys.readouterr().out.splitlines()
    assert load(run)["global_step"] == 7
    assert yaml.safe_load((run / "config.fit.0.yaml").read_text())["name"] == "tiny"
    assert read_contents("runs/tiny/7") == newest


def test_cases_r1_what_belongs_to_a_run(trained, monkeypatch, capsys):
    run = Path("runs/tiny/0").rename("keep")
    best = run / "checkpoints/best.ckpt"
    assert find_run(run / "config.yaml") == find_run(best) == run
    assert find_run(link("best.ckpt", best)) == find_run(link("here", best.parent) / "last.ckpt") == run.absolute()
    assert find_run(link("own.yaml", run / "config.yaml")) == run.absolute()
    monkeypatch.chdir(run / "checkpoints")
    assert find_run("best.ckpt") == find_run("../config.yaml").resolve() == (trained / "keep")
    monkeypatch.chdir("..")
    shutil.copy("checkpoints/best.ckpt", "stray.ckpt")
    assert find_run("stray.ckpt") is None
    # A project with a number for its name.
    Path("../exp/7").mkdir(parents=True)
    Path("../exp/7/config.yaml").touch()
    assert find_run("../exp/7/config.yaml") is None
    # A config of a user's next to that of a run, and a project with the checkpoints of another program.
    Path("lr.yaml").write_text("model: {optimizer: {lr: 1.0}}")
    assert find_run("lr.yaml") is None
    Path("config.yaml").write_text("name: mine\ntrainer: {val_check_interval: 7}\n")
    assert find_run("config.yaml") is find_run("checkpoints/best.ckpt") is None
    assert main(["fit", "-c", "config.yaml", "-c", "../tiny.yaml", "--data.path", "../corpus.txt"]) == 2
    assert "--trainer.val_check_interval is 7, but" in capsys.readouterr().err


def test_cases_r2_a_command_line_has_one_reading(fresh, capsys):
    for args, sentence in {
        "-c tiny.yaml --nam b": "unknown option '--nam'; did you mean --name?",
        "-ctiny.yaml": "unknown option '-ctiny.yaml'; give -c tiny.yaml",
        "--conf tiny.yaml": "unknown option '--conf'; did you mean --config or",
    }.items():
        assert main(["fit", *args.split()]) == 2
        assert sentence in capsys.readouterr().err
        assert not Path("runs").exists()
    Path("twice.yaml").write_text("model:\n  init_args:\n    decoder: {dim: 8, dim: 16}\n")
    assert main(["fit", "-c", "tiny.yaml", "--config", "twice.yaml"]) == 2
    assert "twice.yaml: the key 'dim' stands twice in one mapping, again in line 3" in capsys.readouterr().err
    Path("part.yaml").write_text("dim: 8\ndim: 16\n")
    assert main(["fit", "-c", "tiny.yaml", "--model.decoder", "part.yaml"]) == 2
    assert "part.yaml: the key 'dim' stands twice in one mapping, again in line 2" in capsys.readouterr().err


def test_a_single_callback_needs_no_list(fresh, capsys):
    options = ["--trainer.max_steps", "2", "--model.schedule", "null"]
    assert main(["fit", "-c", "tiny.yaml", "--trainer.callbacks", "ExponentialAverage", *options]) == 0
    assert "averaging_state" in torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)
    assert main(["fit", "-c", "tiny.yaml", "--trainer.callbacks", "BatchSizeFinder", *options]) == 2
    assert "trainer.callbacks: BatchSizeFinder restores a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "names"), [("keep", ["tiny"]), ("other/0", ["tiny", "other"])])
def test_cases_r1_a_renamed_run_resumes_under_its_name(place, names, trained, capsys):
    shutil.copytree("runs/tiny/0", "runs/tiny/7")
    Path(place).parent.mkdir(exist_ok=True)
    Path("runs/tiny/0").rename(place)
    fit = ["fit", "-c", f"{place}/config.yaml", "--ckpt_path", "last", "--trainer.max_steps"]
    for number, name in enumerate(names):
        assert main([*fit, str(7 + number), "--name", name]) == 0
        assert f"run={place}" in capsys.readouterr().out.splitlines()
    # Another name is that of another run.
    assert main([*fit, "9", "--name", "new"]) == 0
    assert "run=runs/new/0" in capsys.readouterr().out.splitlines()


def test_cases_r1_a_new_run_of_a_renamed_one_is_among_those_of_its_name(trained, capsys):
    run = Path("runs/tiny/0").rename("keep")
    assert main(["fit", "-c", f"{run}/config.yaml", "--trainer.max_steps", "3"]) == 0
    assert "run=runs/tiny/0" in capsys.readouterr().out.splitlines()
    assert list_names(".") >= {"keep", "runs"} and list_names("runs") == {"tiny"}


DAMAGE = {
    "cut in a character": lambda content: content[:-3] + b"\xc3",
    "zeros at the end": lambda content: content[:-9] + bytes(9),
    "zeros": lambda content: bytes(len(content)),
    "no start": lambda content: content[5:],
    "binary": lambda content: b'\x80\xff"' + content[:20] + b"\xfe\r" + content[20:],
    "empty": lambda content: b"",
    "a folder": None,
    "a link to nothing": None,
}
SILENT = {
    # A row that a crash cut off is ordinary.
    "metrics.csv": ("empty", "cut in a character", "zeros at the end"),
    "samples.txt": ("empty", "no start"),
}
"""Kinds without a line about them."""


def damage_log(file, kind):
    content = file.read_bytes()
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    elif kind == "a link to nothing":
        file.symlink_to("nothing")
    else:
        file.write_bytes(DAMAGE[kind](content))


@pytest.mark.parametrize("kind", DAMAGE)
def test_cases_s7_a_damaged_log_stops_no_resume(kind, trained, caplog):
    run = Path("runs/tiny/0")
    before = {name: (run / name).read_bytes() for name in ("metrics.csv", "samples.txt")}
    for file in (*map(run.joinpath, before), *run.glob("events.*")):
        damage_log(file, kind)
    with caplog.at_level("INFO"):
        assert main(["fit", "-c", f"{run}/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]) == 0
    for name in before:
        lines = [line for line in caplog.messages if name in line]
        assert len(lines) == (0 if kind in SILENT[name] else 1), caplog.messages
    assert [int(row["step"]) for row in read_rows(run)][-2:] == [7, 8]
    assert (run / "samples.txt").read_bytes().decode("utf-8").count("=== step 8 ===") == 1
    # What can still be read is kept, in the file or next to it.
    if kind == "cut in a character":
        assert before["metrics.csv"].splitlines()[:-1] == (run / "metrics.csv").read_bytes().splitlines()[:-2]
        assert (run / "samples.txt").read_bytes().startswith(before["samples.txt"][:-3])
    if kind == "no start":
        assert (run / "metrics.csv.damaged.0").read_bytes() == before["metrics.csv"][5:]


def test_cases_s8_the_step_of_a_resume_is_read_under_the_lock(trained, monkeypatch, caplog):
    """The process before saves and logs while its successor waits for the lock."""
    run = Path("runs/tiny/0")
    resume = ["fit", "-c", f"{run}/config.yaml", "--ckpt_path", "last", "--trainer.max_steps"]
    early = read_contents(run)
    assert main([*resume, "8"]) == 0
    late, rows = read_contents(run), read_rows(run)
    for file in run.rglob("*"):
        if file.is_file():
            file.unlink()
    for file, content in early.items():
        file.write_bytes(content)

    def end_before(self, folder, reserve=run_folder.RunFolder._reserve):
        for file, content in late.items():
            file.with_suffix(".new").write_bytes(content)
            file.with_suffix(".new").replace(file)
        reserve(self, folder)

    monkeypatch.setattr(run_folder.RunFolder, "_reserve", end_before)
    with caplog.at_level("INFO"):
        assert main([*resume, "9"]) == 0
    assert "last.ckpt was saved meanwhile by another process: resuming at step 8" in caplog.text
    after = read_rows(run)
    # With the times that were measured: no step was trained again.
    assert after[:8] == rows and [int(row["step"]) for row in after] == list(range(1, 10))


def test_cases_r3_a_stray_checkpoint_is_not_loaded(fresh, monkeypatch, capsys):
    once = ["fit", "-c", "tiny.yaml", "--trainer.max_steps", "3"]
    assert main(once) == 0
    stray = Path("runs/tiny/0/checkpoints/last.ckpt")
    other = torch.load(stray, weights_only=True)
    other["state_dict"] = {name: torch.zeros_like(value) for name, value in other["state_dict"].items()}
    Path("stray").mkdir()
    for file in ("stray/on_exception.ckpt", "stray/last.ckpt", "runs/hpc_ckpt_1.ckpt", "hpc_ckpt_1.ckpt"):
        torch.save(other, file)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    keeps = ["--trainer.callbacks+=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=stray"]
    keeps += ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=stray"]
    assert main([*once, *keeps, "--trainer.callbacks.save_last=true"]) == 0
    assert "Restoring" not in capsys.readouterr().err
    left, right = load_weights("runs/tiny/0"), load_weights("runs/tiny/1")
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_cases_n13_a_run_stands_for_its_config_and_checkpoint(trained, capsys):
    def measure(*command):
        assert main(list(command)) == 0
        return capsys.readouterr().out.splitlines()

    config, output = ["-c", "runs/tiny/0/config.yaml"], ["--data.predict_prompts=prompts.txt", "--output=out.jsonl"]
    long = measure("validate", *config, "--ckpt_path", "best")
    assert measure("validate", "runs/tiny") == measure("validate", "runs/tiny/0") == long
    assert measure("validate", "runs/tiny/0/checkpoints/best.ckpt") == long
    assert measure("validate", "runs/tiny", "--ckpt_path", "last") == measure(
        "validate", *config, "--ckpt_path", "last"
    )
    assert measure("test", "runs/tiny") == measure("test", *config, "--ckpt_path", "best")
    # Options after it override the run's, those of further files too.
    Path("more.yaml").write_text("sampling: {max_new_tokens: 2}\n")
    assert measure("predict", "runs/tiny", "-c", "more.yaml", *output)[-1] == "run=runs/tiny/0"
    assert json.loads(Path("out.jsonl").read_text().splitlines()[0])["settings"]["max_new_tokens"] == 2


@pytest.mark.parametrize("words", ["runs/tiny --resume MORE", "--resume runs/tiny/0 MORE", "runs/tiny MORE --resume"])
def test_cases_n13_a_run_resumes_by_its_name(words, trained, capsys):
    # Its newest checkpoint, not its best.
    best = Path("runs/tiny/0/checkpoints/best.ckpt")
    contents = load("runs/tiny/0", "best")
    contents["global_step"] = 1
    torch.save(contents, best)
    assert main(["fit", *words.replace("MORE", "--trainer.max_steps 8").split()]) == 0
    out = capsys.readouterr().out
    assert "resuming from runs/tiny/0/checkpoints/last.ckpt at step 6" in out
    assert "run=runs/tiny/0\n" in out
    assert [row["step"] for row in read_rows()] == [str(step) for step in range(1, 9)]
    assert load("runs/tiny/0")["global_step"] == 8


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            "fit runs/tiny",
            "fit runs/tiny: add --resume to train this run further, or give -c FILE --init_from runs/tiny",
        ),
        ("fit --resume", "--resume needs a run: lightning-xt fit RUN --resume"),
        ("fit -c tiny.yaml --resume", "--resume needs a run"),
        ("fit runs/tiny --resume --ckpt_path last", "--resume and --ckpt_path last both say where the run resumes"),
        ("fit tiny.yaml", "fit tiny.yaml: a config is given with -c, as -c tiny.yaml"),
        ("fit tiny.json", "fit tiny.json: a config is given with -c, as -c tiny.json"),
        ("validate runs/tiny --resume", "--resume trains a run further, which validate does not; omit it"),
        ("validate runs/other", "validate: runs/other is not a run: there is no such folder or file"),
        ("validate moved.ckpt", "validate moved.ckpt: no run's config.yaml is there; give -c FILE --ckpt_path moved"),
        ("validate --verbose true runs/tiny", "'runs/tiny' stands where an option was expected; options begin with"),
    ],
)
def test_cases_n13_other_uses_are_refused(command, says, trained, capsys):
    shutil.copy("runs/tiny/0/checkpoints/best.ckpt", "moved.ckpt")
    before = read_contents()
    assert main(command.split()) == 2
    assert says in capsys.readouterr().err
    assert read_contents() == before


def test_cases_r18_profiles_are_files_of_their_run(fresh):
    profile = ["--trainer.profiler=SimpleProfiler", "--trainer.profiler.filename=times"]
    for _ in range(2):
        assert main(["fit", "-c", "tiny.yaml", *profile]) == 0
    assert sorted(fresh.rglob("*times*")) == [fresh / f"runs/tiny/{number}/fit-times.txt" for number in (0, 1)]
    assert main(["fit", "-c", "tiny.yaml", *profile, "--trainer.profiler.dirpath=own"]) == 0
    assert (fresh / "own/fit-times.txt").is_file()


def test_cases_r18_hints_are_true_and_quoted(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--name", "it's"]) == 0
    printed = capsys.readouterr().out.splitlines()
    quoted = """'runs/it'"'"'s/0'"""
    assert [f"tensorboard: tensorboard --logdir {quoted}", "run=runs/it's/0"] == printed[-5:-3]
    folder = run_folder.RunFolder(Path("runs"), Path("runs/it's/0"), Mock(), loggers=())
    trainer = SimpleNamespace(callbacks=[folder], checkpoint_callbacks=[])
    assert _describe_saved(trainer).endswith(f"resume with lightning-xt fit {quoted} --resume")
    assert main(["fit", "-c", "tiny.yaml", "--standard.tensor_board=null"]) == 0
    printed = capsys.readouterr().out
    assert "sample: " in printed and "tensorboard" not in printed


def test_cases_r18_another_schedule_of_a_resume_is_reported(trained, caplog):
    resume = ["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]
    caplog.set_level("INFO")
    assert main(resume) == 0
    assert "learning rate" not in caplog.text
    assert main([*resume, "--trainer.max_steps", "12"]) == 0
    # A cosine to a tenth, from step 2 on: at its end here, and at 4 of 9 steps there.
    assert f"{1e-3 * (0.1 + 0.9 * (1 + math.cos(4 / 9 * math.pi)) / 2):.3g}" == "0.000628"
    assert "the learning rate of step 6 is 0.000628 by this schedule and 0.0001 in the checkpoint: " in caplog.text


def test_a_run_that_goes_back_has_the_best_checkpoint_of_its_new_branch(fresh, capsys):
    options = ["--validate_every=2", "--checkpoint_every=2", "--keep_checkpoints=3", "--model.optimizer.lr=0.01"]
    assert main(["fit", "-c", "tiny.yaml", *options]) == 0
    folder = Path("runs/tiny/0")
    back = ["fit", "-c", f"{folder}/config.yaml", "--ckpt_path", f"{folder}/checkpoints/step-2.ckpt"]
    abandoned = load(folder, "best")["global_step"]
    assert abandoned > 2
    capsys.readouterr()
    # Without a callback that replaces the file, the loss is still that of its weights.
    without = [*back, "--standard.best_checkpoint=null", "--model.optimizer.lr=3"]
    measured = {int(row["step"]): float(row["val/loss"]) for row in read_rows() if row["val/loss"]}
    assert main(without) == 0
    assert f"val/loss={measured[abandoned]:.6f}" in capsys.readouterr().out
    assert measured[abandoned] < 10 < float(read_rows()[-1]["val/loss"])
    assert main([*back, "--model.optimizer.lr=3"]) == 0
    losses = {float(row["val/loss"]): int(row["step"]) for row in read_rows() if row["val/loss"] and row["step"] > "2"}
    assert f"val/loss={min(losses):.6f}" in capsys.readouterr().out
    assert load(folder, "best")["global_step"] == losses[min(losses)]
    assert min(losses) > 10
