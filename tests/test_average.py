"""average: the mean of a run's checkpoints, and the checkpoints that a run keeps for it."""

import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from tiny_run import list_names, load_weights, write_inputs

from lightning_xt.cli import main
from lightning_xt.training.language_model import LanguageModel

FOLDER = Path("runs/tiny/0/checkpoints")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder, here = tmp_path_factory.mktemp("kept"), Path.cwd()
    write_inputs(folder)
    os.chdir(folder)
    try:
        assert main(["fit", "-c", "tiny.yaml", "--keep_checkpoints", "3", "--checkpoint_every", "1"]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def run(finished_run, tmp_path, monkeypatch):
    """Return a run of six steps that has kept the last three, in the current folder."""
    monkeypatch.chdir(shutil.copytree(finished_run, tmp_path / "run"))


def load(name):
    return torch.load(FOLDER / name, weights_only=True)


def change(name, **values):
    torch.save(load(name) | values, FOLDER / name)


def fail(capsys, *options):
    capsys.readouterr()
    assert main(["average", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    return captured.err.removeprefix("lightning-xt: error: ").rstrip("\n")


def test_a_run_keeps_the_newest(run):
    assert list_names(FOLDER) == {"best.ckpt", "last.ckpt", "step-4.ckpt", "step-5.ckpt", "step-6.ckpt"}
    assert [load(f"step-{step}.ckpt")["global_step"] for step in (4, 5, 6)] == [4, 5, 6]
    last = load_weights()
    assert all(torch.equal(last[name], value) for name, value in load("step-6.ckpt")["state_dict"].items())


def test_a_run_resumes_from_an_average_and_forgets_what_followed(run):
    last = load_weights()
    (FOLDER / "step-99.ckpt").touch()
    (FOLDER / "step-x.ckpt").touch()
    config = "runs/tiny/0/config.yaml"
    assert main(["fit", "-c", config, "--ckpt_path", str(FOLDER / "step-4.ckpt"), "--keep_checkpoints", "2"]) == 0
    assert list_names(FOLDER) == {"best.ckpt", "last.ckpt", "step-5.ckpt", "step-6.ckpt", "step-x.ckpt"}
    assert all(torch.equal(last[name], value) for name, value in load_weights().items())


def test_a_run_keeps_none_unless_asked(trained):
    assert list_names(FOLDER) == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize("last", [None, 2])
def test_the_mean(run, last, capsys):
    capsys.readouterr()
    assert main(["average", "runs/tiny", *([] if last is None else ["--last", str(last)])]) == 0
    steps = [5, 6] if last else [4, 5, 6]
    printed = f"averaged the weights of steps {', '.join(map(str, steps))}\ncheckpoint={FOLDER / 'average.ckpt'}\n"
    assert capsys.readouterr().out == printed
    states = [load(f"step-{step}.ckpt")["state_dict"] for step in steps]
    made, newest = load("average.ckpt"), load("step-6.ckpt")
    assert made["state_dict"].keys() == newest["state_dict"].keys()
    for name, value in made["state_dict"].items():
        mean = torch.stack([state[name].double() for state in states]).mean(0)
        torch.testing.assert_close(value, mean.float(), rtol=1e-7, atol=0)
    own = newest["lightning_xt"]
    del own["metrics"]
    assert made["lightning_xt"] == own | {"averaged": {"steps": steps, "files": [f"step-{n}.ckpt" for n in steps]}}
    assert made.keys() == newest.keys()
    assert made["global_step"] == 6
    assert ".average.ckpt.part" not in list_names(FOLDER)


def test_what_it_writes_is_a_checkpoint_like_others(run, capsys):
    assert main(["average", "runs/tiny/0", "--output", "mean.ckpt"]) == 0
    assert not (FOLDER / "average.ckpt").exists()
    model = LanguageModel.load_from_checkpoint("mean.ckpt", weights_only=True)
    state = torch.load("mean.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert main(["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "mean.ckpt"]) == 0
    assert main(["generate", "mean.ckpt", "--prompt", "fox", "--max_new_tokens", "3"]) == 0
    assert main(["info", "mean.ckpt"]) == 0
    assert "metrics" not in capsys.readouterr().out


def test_counts_are_the_newest_and_shared_tensors_stay_shared(run):
    for step in (4, 5, 6):
        table = torch.full((2, 3), float(step), dtype=torch.bfloat16)
        change(f"step-{step}.ckpt", state_dict={"count": torch.tensor(step), "table": table, "again": table})
    assert main(["average", "runs/tiny"]) == 0
    state = load("average.ckpt")["state_dict"]
    assert state["count"] == 6 and state["count"].dtype == torch.int64
    assert torch.equal(state["table"], torch.full((2, 3), 5.0, dtype=torch.bfloat16))
    assert state["table"].data_ptr() == state["again"].data_ptr()


def test_cases_d2_means_of_odd_values_are_those_of_fractions(run):
    """Large, small and opposite values, of few bits, and of one checkpoint."""
    values = {
        4: [3e38, 65504.0, 1e-45, 1.0, 0.0],
        5: [3e38, 65504.0, 0.0, -1.0, -0.0],
        6: [3e38, 65472.0, 0.0, 1e-8, 0.0],
    }
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    for step, row in values.items():
        state = {
            str(kind): torch.tensor([min(each, torch.finfo(kind).max) for each in row], dtype=kind) for kind in kinds
        }
        change(f"step-{step}.ckpt", state_dict=state | {"empty": torch.zeros(0), "flag": torch.tensor(step > 4)})
    for steps in ([4, 5, 6], [6]):
        assert main(["average", "runs/tiny", "--last", str(len(steps))]) == 0
        made = load("average.ckpt")["state_dict"]
        rows = [load(f"step-{step}.ckpt")["state_dict"] for step in steps]
        assert made["empty"].shape == (0,) and bool(made["flag"])
        for kind in kinds:
            columns = zip(*(row[str(kind)].tolist() for row in rows), strict=True)
            exact = [float(sum(map(Fraction, column)) / len(steps)) for column in columns]
            torch.testing.assert_close(made[str(kind)], torch.tensor(exact, dtype=kind), rtol=1e-15, atol=0)


def test_it_needs_no_lightning(run):
    script = """
import sys
from lightning_xt.cli import main
assert main(["average", "runs/tiny"]) == 0
sys.exit(any(name.split(".")[0] == "lightning" or name.startswith("lightning_xt.models") for name in sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


MISTAKES = [
    ("", "average: the following arguments are required: RUN"),
    ("nope", "nope is not a run: there is no such folder or file"),
    ("runs/tiny --last 0", "--last is 0; it must be at least 1 checkpoint"),
    ("runs/tiny --last 4", f"{FOLDER} has only 3 of the 4 step-N.ckpt that --last asks for; give --last 3, or train "
     "with --keep_checkpoints 4"),
    ("runs/tiny --lats 4", "average: unrecognized arguments: --lats 4; did you mean --last?"),
    ("runs/tiny --output mean.pt", "--output mean.pt is not the name of a checkpoint; end it in .ckpt"),
    ("runs/tiny --output folder.ckpt", "--output folder.ckpt is a folder; name a file in it"),
    ("runs/tiny --output no/mean.ckpt", "--output no/mean.ckpt: there is no folder no; create it first"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), MISTAKES, ids=[options for options, _ in MISTAKES])
def test_a_mistake_gives_one_sentence(options, sentence, run, capsys):
    Path("folder.ckpt").mkdir()
    before = list_names(FOLDER)
    assert fail(capsys, *options.split()).startswith(sentence)
    assert list_names(FOLDER) == before


def test_runs_that_cannot_be_averaged(run, capsys):
    change("step-4.ckpt", state_dict={"a": torch.ones(2)})
    change("step-5.ckpt", state_dict={"a": torch.ones(3), "b": torch.ones(1)})
    change("step-6.ckpt", state_dict={"a": torch.ones(3)})
    assert fail(capsys, "runs/tiny") == (
        f"{FOLDER}/step-4.ckpt and step-6.ckpt are not of one model: a is (2,) in the former and (3,) in the latter; "
        "average the checkpoints of one run"
    )
    assert "b is (1,) in the former and missing in the latter" in fail(capsys, "runs/tiny", "--last", "2")
    change("step-6.ckpt", lightning_xt={"format": 99, "version": "7.0"})
    assert "the checkpoint has format 99" in fail(capsys, "runs/tiny")
    change("step-5.ckpt", lightning_xt=None)
    assert "step-5.ckpt was not written by lightning-xt; average the" in fail(capsys, "runs/tiny")
    (FOLDER / "step-5.ckpt").write_text("no checkpoint")
    assert "step-5.ckpt cannot be read as a checkpoint: it is not in" in fail(capsys, "runs/tiny")
    for step in (4, 5, 6):
        (FOLDER / f"step-{step}.ckpt").unlink()
    assert fail(capsys, "runs/tiny").startswith(f"{FOLDER} has no step-N.ckpt, of which there must be some to average")


def test_a_file_that_cannot_be_written(run, capsys, monkeypatch):
    assert main(["average", "runs/tiny", "--last", "1"]) == 0
    before = (FOLDER / "average.ckpt").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert fail(capsys, "runs/tiny") == (
        f"{FOLDER}/average.ckpt cannot be written (No space left on device); make room, or name another file: --output"
    )
    assert (FOLDER / "average.ckpt").read_bytes() == before


def test_as_many_as_zero_can_be_kept(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--keep_checkpoints", "-1"]) == 2
    assert "--keep_checkpoints is -1; it must be at least 0" in capsys.readouterr().err
