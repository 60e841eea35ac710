"""ablate: its plan, its resumes, its tables, and its messages."""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scripted_runner import GAINS, Killed, ScriptedRunner, die, leave, write_overlays
from scripted_runner import fail as fail_in_process

from lightning_xt.cli import main
from lightning_xt.commands.ablation import ablation_report, process_runner, study
from lightning_xt.commands.ablation.ablation_report import choose_threads, hash_code
from lightning_xt.commands.ablation.child_process import ChildProcess, Place, RunError, _occupy
from lightning_xt.commands.ablation.overlays import read_variants
from lightning_xt.commands.ablation.process_runner import BaseError, ProcessRunner
from lightning_xt.commands.ablation.study import list_rate_options
from lightning_xt.commands.ablation.study_plan import TUNING_SEED

OPTIONS = ["-c", "base.yaml", "--budget", "steps=100", "--floor", "4", "--out", "study"]
MEASURED = ("by_seconds", "by_bytes", "seconds", "processor_seconds")
"""Columns that depend on measured times."""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("trainer: {max_steps: 3}\n")


@pytest.fixture
def ablate(monkeypatch, capsys):
    """Return a function that runs the command with a scripted runner, and returns that and the output."""

    def run(*args, code=0, draws=False, **script):
        runner = ScriptedRunner(**script)
        monkeypatch.setattr(ablation_report, "ProcessRunner", lambda *args: runner)
        if not draws:
            for name in ("draw_study", "write_plot", "write_board"):
                monkeypatch.setattr(ablation_report, name, lambda *args: None)
        capsys.readouterr()
        assert main(["ablate", *args]) == code
        return runner, capsys.readouterr()

    return run


def fail(ablate, *args, **script):
    """Return the sentence of a refused command, which has written nothing to standard output."""
    _, captured = ablate(*args, code=2, **script)
    assert captured.out == ""
    return captured.err.splitlines()[-1].removeprefix("lightning-xt: error: ")


def read_rows(folder="study"):
    with open(f"{folder}/table.csv", newline="") as file:
        return {row["variant"]: row for row in csv.DictReader(file)}


def read_quality(folder):
    """Return what must not depend on interruptions: the rows and the runs without times."""
    tables = []
    for name in ("table.csv", "runs.csv"):
        with open(f"{folder}/{name}", newline="") as file:
            rows = [{k: v for k, v in row.items() if k not in MEASURED and "ratio" not in k and "seconds" not in k}
                    for row in csv.DictReader(file)]  # fmt: skip
        tables.append(rows)
    return tables


def test_rows_say_what_helps(ablate):
    files = write_overlays("slow", "fast", "same", "minor", "broken", "late")
    runner, captured = ablate(*OPTIONS, "--variants", *files)
    rows = read_rows()
    assert list(rows) == ["base", "slow", "minor", "same", "fast", "broken", "late"]
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {
        "base": "the base",
        "slow": "better",
        "fast": "worse",
        "minor": "likely better",
        "same": "within the noise",
        "broken": "failed: heads (7) do not divide dim (16); remove speed/broken.json to try again",
        "late": "failed: val/loss is nan after 4 steps; remove results/repeat/late-1.json to try again (seed 1)",
    }
    # In the order fixed beforehand: each seed in turn, the base first.
    keys = [key for key, _ in runner.trained]
    first = ["repeat/base-0", "half/base-0", "repeat/slow-0", "repeat/fast-0", "repeat/same-0", "repeat/minor-0"]
    assert keys[:8] == [*first, "repeat/late-0", "repeat/base-1"] and keys[-1] == "repeat/base-3"
    assert [key for key in json.loads(Path("study/plan.json").read_text())["order"] if "broken" not in key] == keys
    options = dict(runner.trained)["repeat/slow-2"]
    assert options == [
        "-c", "base.yaml", "-c", "study/overlays/slow.yaml", "--trainer.max_steps=100", "--seed_everything=2",
        "--data.seed=2",
    ]  # fmt: skip
    assert dict(runner.trained)["half/base-2"][2] == "--trainer.max_steps=50"
    kept = json.loads(Path("study/speed/broken.json").read_text())
    assert kept == {"error": verdicts["broken"].removeprefix("failed: "), "output": "Traceback"}
    # Welch's test knows the spread of three runs badly, the shared one is that of all rows.
    assert 0.05 < float(rows["minor"]["p_corrected"]) < 1 and float(rows["minor"]["p_shared_corrected"]) < 0.05
    # Holm multiplies the smallest p-value by the number of tested rows.
    assert float(rows["slow"]["p_corrected"]) == pytest.approx(4 * float(rows["slow"]["p"]))
    assert "study=study" in captured.out.splitlines() and "| slow | 2.8" in captured.out
    assert "corrected for the number of rows, 4," in captured.out


def test_a_slow_gain_may_be_none_by_seconds(ablate):
    ablate(*OPTIONS, "--variants", *write_overlays("slow", "fast"))
    rows, found = read_rows(), json.loads(Path("study/table.json").read_text())
    # From 50 to 100 steps the formula falls by 0.5.
    assert found["slope"] == pytest.approx(0.5 / 0.6931, rel=0.05)
    # Twice the time pays for half the steps, and half the time for twice as many.
    for name, change in (("slow", 0.5), ("fast", -0.5)):
        assert float(rows[name]["by_seconds"]) == pytest.approx(float(rows[name]["mean"]) + change, abs=0.03)
    assert rows["base"]["by_seconds"] == rows["base"]["mean"]


def test_budgets_of_seconds_and_flops_give_each_variant_its_steps(ablate):
    files = write_overlays("slow", "fast")
    runner, _ = ablate("-c", "base.yaml", "--budget", "seconds=10", "--out", "seconds", "--variants", *files)
    steps = {key: int(args[-3].split("=")[1]) for key, args in runner.trained}
    assert (steps["repeat/base-0"], steps["repeat/slow-0"], steps["repeat/fast-0"]) == (100, 50, 200)
    rows = read_rows("seconds")
    assert rows["slow"]["by_seconds"] == rows["slow"]["mean"]
    # Twice the steps by bytes: the metric falls.
    assert float(rows["slow"]["by_bytes"]) == pytest.approx(float(rows["slow"]["mean"]) - 0.5, abs=0.03)
    runner, _ = ablate("-c", "base.yaml", "--budget", "flops=5G", "--out", "flops", "--variants", *files)
    assert {args[-3] for key, args in runner.trained if "half" not in key} >= {"--trainer.max_steps=5"}


@pytest.mark.parametrize("most", [0, 1, 5, 11])
def test_a_study_killed_after_any_run_gives_the_same_table(ablate, most):
    files = write_overlays("slow", "fast", "same", "broken")
    options = ["--tune", "lr=0.01,0.02,0.03", "--seeds", "2", "--variants", *files]
    ablate(*OPTIONS[:-1], "whole", *options)
    with pytest.raises(Killed):
        ablate(*OPTIONS, *options, most=most)
    first, _ = ablate(*OPTIONS, *options)
    assert len(first.trained) == 12 + 4 + 2 * 4 - most
    # What was measured is kept.
    assert first.measured == []
    again, _ = ablate(*OPTIONS, *options)
    assert again.trained == [] and again.measured == []
    assert read_quality("study") == read_quality("whole")
    assert Path("study/table.md").read_text() == Path("whole/table.md").read_text()


def test_learning_rates_are_tuned_with_equal_effort(ablate):
    runner, captured = ablate(*OPTIONS, "--tune", "lr=0.01,0.02", "--variants", *write_overlays("slow", "late"))
    tuning = [(key, args) for key, args in runner.trained if key.startswith("tuning/")]
    names = [f"tuning/{name}-{rate}" for rate in (0.01, 0.02) for name in ("base", "slow", "late")]
    assert [key for key, _ in tuning] == names
    assert all(f"--seed_everything={TUNING_SEED}" in args for _, args in tuning)
    repeats = [args for key, args in runner.trained if not key.startswith("tuning/")]
    assert all("--model.optimizer.lr=0.02" in args for args in repeats)
    assert read_rows()["slow"]["learning_rate"] == "0.02" and "| 0.02* |" in captured.out
    muon = {"class_path": "MuonAdamW", "init_args": {"lr": 0.02, "adamw_lr": 0.005, "head_lr": None}}
    assert list_rate_options(muon, 0.04) == ["--model.optimizer.lr=0.04", "--model.optimizer.adamw_lr=0.01"]


def test_a_rate_that_is_tried_again_and_wins_trains_the_repeats_again(ablate):
    options = [*OPTIONS, "--tune", "lr=0.01,0.02", "--variants", *write_overlays("slow", "fast")]
    ablate(*options, failures={"tuning/slow-0.02": [RunError("val/loss is nan after 4 steps")]})
    assert {name: row["learning_rate"] for name, row in read_rows().items()} == {
        "base": "0.02", "slow": "0.01", "fast": "0.02"
    }  # fmt: skip
    with open("study/runs.csv", newline="") as file:
        rates = {row["run"]: row["learning rate"] for row in csv.DictReader(file)}
    assert (rates["tuning/slow-0.02"], rates["repeat/slow-0"], rates["repeat/fast-0"]) == ("0.02", "0.01", "0.02")
    # A result of a version that kept no rate is not trained again.
    kept = json.loads(Path("study/results/repeat/fast-0.json").read_text())
    assert kept.pop("rate") == 0.02
    Path("study/results/repeat/fast-0.json").write_text(json.dumps(kept))
    assert ablate(*options)[0].trained == []
    Path("study/results/tuning/slow-0.02.json").unlink()
    runner, _ = ablate(*options)
    assert [key for key, _ in runner.trained] == ["tuning/slow-0.02", *(f"repeat/slow-{seed}" for seed in range(3))]
    assert "--model.optimizer.lr=0.02" in dict(runner.trained)["repeat/slow-0"]
    with open("study/runs.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["purpose"] == "repeat" and row["run"] != "repeat/fast-0"]
    assert {row["learning rate"] for row in rows} == {"0.02"}


def test_an_overlay_without_the_metric_of_the_base_says_so(ablate, monkeypatch):
    def make_result(self, run, options, own=ScriptedRunner.make_result):
        result = own(self, run, options)
        if run.variant == "none":
            del result["metrics"]["val/bits_per_byte"]
        return result

    monkeypatch.setattr(ScriptedRunner, "make_result", make_result)
    ablate(*OPTIONS, "--variants", *write_overlays("slow", "none"))
    rows = read_rows()
    assert rows["none"]["verdict"] == "failed: it has no val/bits_per_byte (seed 0)"
    assert rows["slow"]["verdict"] == "better" and rows["slow"]["seeds"] == "0 1 2"


def test_an_optimizer_without_a_rate_is_named_in_its_row(ablate):
    message = fail(ablate, *OPTIONS, "--tune", "lr=1,2", "--variants", *write_overlays("same"), optimizer={})
    assert message == (
        "ablate: the base cannot be trained: no learning rate of --tune trains it: its optimizer has no learning rate "
        "lr above 0, which --tune lr=... would set"
    )


def test_one_seed_claims_no_interval(ablate):
    _, captured = ablate(*OPTIONS, "--seeds", "1", "--variants", *write_overlays("slow"))
    row = read_rows()["slow"]
    assert row["verdict"] == "one seed: no interval is claimed"
    assert (row["margin"], row["difference"], row["p"], row["p_corrected"]) == ("", "", "", "")
    assert "With one seed no interval is claimed" in captured.out
    assert '<tr class="one-seed"><td data-key="slow">' in Path("study/table.html").read_text()


def test_a_study_grows_by_variants_only(ablate):
    ablate(*OPTIONS, "--variants", *write_overlays("slow"))
    runner, _ = ablate(*OPTIONS, "--variants", *write_overlays("slow", "fast"))
    assert [key for key, _ in runner.trained] == ["repeat/fast-0", "repeat/fast-1", "repeat/fast-2"]
    assert fail(ablate, *OPTIONS, "--variants", "fast.yaml") == (
        "ablate --out study holds a study with slow too; give all of its variants, or another --out"
    )


def test_other_code_must_train_the_base_to_the_same_bits(ablate, monkeypatch):
    files = ["--variants", *write_overlays("slow")]
    ablate(*OPTIONS, *files)
    before = json.loads(Path("study/plan.json").read_text())["code"]
    assert re.fullmatch("[0-9a-f]{16}", before)
    monkeypatch.setattr(ablation_report, "hash_code", lambda: "other")
    runner, _ = ablate(*OPTIONS, *files)
    assert [key for key, _ in runner.trained] == ["repeat/base-0"]
    assert json.loads(Path("study/plan.json").read_text())["code"] == "other"
    runner, _ = ablate(*OPTIONS, *files)
    assert runner.trained == [] and "The code changed" not in Path("study/table.md").read_text()
    ablate(*OPTIONS, *files, "--seeds", "4")
    assert "- The code changed within 1 rows, such as slow: a run" in Path("study/table.md").read_text()
    files += ["--seeds", "4"]
    monkeypatch.setattr(ablation_report, "hash_code", lambda: "third")
    monkeypatch.setitem(GAINS, "base", 1e-15)
    kept = json.loads(Path("study/results/repeat/base-0.json").read_text())["metrics"]["val/bits_per_byte"]
    message = fail(ablate, *OPTIONS, *files)
    assert f"holds a study of other code, by which its run repeat/base-0 ended at val/bits_per_byte {kept!r}" in message


def test_other_code_is_checked_on_the_same_processor(ablate, monkeypatch):
    files = ["--variants", *write_overlays("slow", "fast")]
    monkeypatch.setattr(study, "name_processors", lambda: "one")
    ablate(*OPTIONS, *files[:2])
    monkeypatch.setattr(study, "name_processors", lambda: "another")
    ablate(*OPTIONS, *files)
    with open("study/runs.csv", newline="") as file:
        assert {(row["variant"], row["processor"]) for row in csv.DictReader(file)} == {
            ("base", "one"), ("slow", "one"), ("fast", "another")
        }  # fmt: skip
    sentence = "Trained on one and on another, which round differently: a run repeated on another ends at other bits."
    assert sentence in Path("study/table.md").read_text()
    monkeypatch.setattr(study, "name_processors", lambda: "a third")
    monkeypatch.setattr(ablation_report, "hash_code", lambda: "other")
    kept = float(read_rows()["base"]["values"].split()[0])
    with monkeypatch.context() as patch:
        patch.setitem(GAINS, "base", 0.05)
        assert fail(ablate, *OPTIONS, *files) == (
            "ablate --out study holds a study of other code, by which its run repeat/base-0 ended at "
            f"val/bits_per_byte {kept!r} on one, and now {kept + 0.05!r} on a third, which is not known to be noise; "
            "continue it there, or give another --out"
        )
        patch.setitem(GAINS, "base", 0.001)
        # Rounded otherwise.
        assert [key for key, _ in ablate(*OPTIONS, *files)[0].trained] == ["repeat/base-0"]
    assert "by which its run repeat/base-0 ended" not in Path("study/table.md").read_text()


def test_an_overlay_is_added_on_the_same_data_only(ablate):
    ablate(*OPTIONS, "--variants", *write_overlays("slow"))
    files = ["--variants", *write_overlays("slow", "fast")]
    assert fail(ablate, *OPTIONS, *files, data="other") == (
        "ablate: the data have changed since the study began (their hash is other, not abc); restore them, or give "
        "another --out"
    )
    assert not Path("study/speed/fast.json").exists()
    ablate(*OPTIONS[:-1], "other", "--variants", *write_overlays("slow"))
    Path("fast.yaml").write_text("# Other data.\ndata: {class_path: TextFiles}\n")
    with pytest.MonkeyPatch.context() as patch:
        own = ScriptedRunner.make_result
        patch.setattr(ScriptedRunner, "make_result", lambda *args: own(*args) | {"data": "other"})
        ablate(*OPTIONS[:-1], "other", *files, data="other")
    assert read_rows("other")["fast"]["verdict"] == "worse"


def test_other_code_is_checked_by_whichever_run_of_the_base_there_is(ablate, monkeypatch):
    options = [*OPTIONS, "--tune", "lr=0.01,0.02", "--variants", *write_overlays("slow")]
    monkeypatch.setattr(ablation_report, "hash_code", lambda: "first")
    with pytest.raises(Killed):
        ablate(*options, most=1)
    monkeypatch.setattr(ablation_report, "hash_code", lambda: "second")
    runner, _ = ablate(*options)
    assert [key for key, _ in runner.trained[:2]] == ["tuning/base-0.01", "tuning/slow-0.01"]
    with open("study/runs.csv", newline="") as file:
        codes = {row["run"]: row["code"] for row in csv.DictReader(file)}
    assert "The code changed" not in Path("study/table.md").read_text()
    assert codes.pop("tuning/base-0.01") == "first" and set(codes.values()) == {"second"}
    monkeypatch.setattr(ablation_report, "hash_code", lambda: "third")
    message = fail(ablate, *options, failures={"repeat/base-0": [RunError("a new bug")]})
    assert message == "ablate: the base cannot be trained: a new bug"


def test_the_hash_of_the_code_has_all_that_sets_up_a_training(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_xt.__file__", str(tmp_path / "__init__.py"))
    hashes = []
    files = ["commands/ablation/child_process.py", "commands/ablation/child_training.py", "commands/trainer/a.py"]
    files += ["nn/norms/a.py", "commands/fit.py"]
    for text in ("", *files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("changed" if file == text else "")
        hashes.append(hash_code())
    assert len(set(hashes)) == 5 and hashes[-1] == hashes[0]


KILLED = RunError("its process was killed (SIGKILL)", may_pass=True)


def test_a_killed_run_is_trained_again_before_it_counts(ablate):
    files = write_overlays("slow", "fast")
    failures = {
        "repeat/slow-0": [KILLED],
        "repeat/fast-1": [KILLED, KILLED],
        "fast": [KILLED],
        "repeat/base-1": [KILLED],
    }
    runner, captured = ablate(*OPTIONS, "--variants", *files, failures=failures)
    # The others come first.
    assert [key for key, _ in runner.trained[-3:]] == ["repeat/slow-0", "repeat/base-1", "repeat/fast-1"]
    assert runner.measured == ["base", "slow", "fast", "fast"]
    assert "repeat/slow-0: its process was killed (SIGKILL); it is trained again after the others" in captured.err
    rows = read_rows()
    assert rows["slow"]["verdict"] == "better" and len(rows["base"]["values"].split()) == 4
    way_out = "remove results/repeat/fast-1.json to try again"
    assert rows["fast"]["verdict"] == f"failed: its process was killed (SIGKILL); {way_out} (seed 1)"
    Path("study/results/repeat/fast-1.json").unlink()
    runner, _ = ablate(*OPTIONS, "--variants", *files)
    assert [key for key, _ in runner.trained] == ["repeat/fast-1"] and read_rows()["fast"]["verdict"] == "worse"


def test_a_base_that_dies_while_a_variant_is_measured_ends_no_row(ablate):
    options = [*OPTIONS, "--variants", *write_overlays("slow")]
    message = fail(ablate, *options, failures={"slow": [BaseError("killed"), BaseError("killed again")]})
    assert message == "ablate: the base cannot be trained: killed again"
    assert not Path("study/speed/slow.json").exists()
    runner, _ = ablate(*options, failures={"slow": [BaseError("killed")]})
    assert runner.measured == ["slow", "slow"] and read_rows()["slow"]["verdict"] == "better"


@pytest.mark.parametrize("key", ["repeat/base-1", "half/base-1", "probe-recall/base-0"])
def test_a_run_of_the_base_that_fails_ends_the_study(ablate, key):
    Path("recall.yaml").write_text("trainer: {max_steps: 7}\n")
    options = [*OPTIONS, "--variants", *write_overlays("slow"), "--probes", "recall.yaml"]
    where = " on recall" if "recall" in key else ""
    message = fail(ablate, *options, failures={key: [RunError("not finite")]})
    assert message == f"ablate: the base cannot be trained{where}: not finite"
    assert not Path(f"study/results/{key}.json").exists()
    runner, _ = ablate(*options)
    assert runner.trained[0][0] == key and read_rows()["base"]["verdict"] == "the base"


def test_a_wrong_metric_of_probes_trains_one_run_of_them_and_may_be_changed(ablate):
    for name in ("recall", "copy"):
        Path(f"{name}.yaml").write_text("trainer: {max_steps: 7}\n")
    options = [*OPTIONS, "--variants", *write_overlays("slow"), "--probes", "recall.yaml", "copy.yaml"]
    failures = {"probe-recall/base-0": [RunError("it has none of the metrics val/accuracy")]}
    runner, _ = ablate(*options, "--probe_metric", "val/accuracy", code=2, failures=failures)
    assert [key for key, _ in runner.trained if "probe" in key] == ["probe-recall/base-0"]
    # On another probe, after a result of the first, which lacks the next metric.
    failures = {"probe-copy/base-0": [RunError("it has none of the metrics val/loss")]}
    ablate(*options, "--probe_metric", "val/loss", code=2, failures=failures)
    kept = json.loads(Path("study/results/probe-recall/base-0.json").read_text())
    del kept["metrics"]["val/exact_match"]
    Path("study/results/probe-recall/base-0.json").write_text(json.dumps(kept))
    runner, _ = ablate(*options)
    assert [key for key, _ in runner.trained[:3]] == ["probe-recall/base-0", "probe-copy/base-0", "probe-recall/slow-0"]
    assert float(read_rows()["slow"]["copy_mean"]) > 0.5 and float(read_rows()["base"]["recall_mean"]) == 0.501


def test_a_study_grows_by_seeds(ablate):
    files = ["--variants", *write_overlays("slow")]
    ablate(*OPTIONS, *files)
    grown = [*files, "--seeds", "4", "--floor", "5"]
    runner, _ = ablate(*OPTIONS, *grown)
    assert [key for key, _ in runner.trained] == ["half/base-3", "repeat/slow-3", "repeat/base-4"]
    ablate(*OPTIONS[:-1], "whole", *grown)
    assert read_quality("study") == read_quality("whole")


def test_a_study_keeps_its_threads(ablate, monkeypatch):
    monkeypatch.setattr(ablation_report, "count_usable_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    files = ["--variants", *write_overlays("slow")]
    with pytest.raises(Killed):
        ablate(*OPTIONS, *files, most=2)
    ablate(*OPTIONS, *files, "--workers", "2")
    assert json.loads(Path("study/plan.json").read_text())["threads"] == 2
    message = fail(ablate, *OPTIONS, *files, "--threads", "1")
    assert message == (
        "ablate --out study holds a study with --threads 2, now 1; use those again, or give another --out"
    )


def test_a_study_begun_by_another_process_meanwhile_is_respected(ablate, monkeypatch):
    files = ["--variants", *write_overlays("slow")]
    ablate(*OPTIONS[:-1], "other", *files, "--budget", "steps=50")

    def measure(self, base, args, own=ScriptedRunner.measure):
        if not Path("study").exists():
            shutil.copytree("other", "study")
        return own(self, base, args)

    monkeypatch.setattr(ScriptedRunner, "measure", measure)
    message = fail(ablate, *OPTIONS, *files)
    assert "holds a study with --budget steps=50, now steps=100" in message
    assert Path("study/plan.json").read_bytes() == Path("other/plan.json").read_bytes()


def test_leftovers_of_a_kill_do_not_matter(ablate):
    files = ["--variants", *write_overlays("slow")]
    Path("study").mkdir()
    Path("study/.plan.json.part").write_text("{")
    Path("study/.lock").touch()
    part = Path("study/tensorboard/repeat/.slow-0.part")
    with pytest.raises(Killed):
        ablate(*OPTIONS, *files, most=0, draws=True)
    part.mkdir(parents=True)
    (part / "events").touch()
    ablate(*OPTIONS, *files, draws=True)
    assert not part.exists() and [file.name[:6] for file in part.with_name("slow-0").iterdir()] == ["events"]
    assert next(part.with_name("slow-0").iterdir()).stat().st_size > 100


@pytest.mark.parametrize("text", ["{}", "3", "[]"])
def test_a_plan_that_lacks_keys_is_named(ablate, text):
    Path("study").mkdir()
    Path("study/plan.json").write_text(text)
    message = fail(ablate, *OPTIONS, "--variants", *write_overlays("slow"))
    if text == "3":
        assert message.startswith("study/plan.json cannot be read (")
        return
    assert message == (
        "ablate --out study holds a plan.json without versions, code, base, options, budget and 8 more: it is of "
        "another version, or not a study; give another --out"
    )


def test_other_studies_in_the_folder_are_refused(ablate, monkeypatch):
    files = ["--variants", *write_overlays("slow")]
    ablate(*OPTIONS, *files)
    before = sorted((file, file.read_bytes()) for file in Path("study").rglob("*.json"))
    for change, message in (
        (
            ["--budget", "steps=90"],
            "a study with --budget steps=100, now steps=90; use those again, or",
        ),
        (["--seeds", "2"], "a study with --seeds 3, now 2; give as many or more, or another --out"),
        (["--floor", "3"], "a study with --floor 4, now 3; give as many or more, or another --out"),
        (["--tune", "lr=1,2"], "with --tune none, now lr=1,2;"),
        (["--threads", "64"], "with --threads "),
        (["--model.decoder.dim", "8"], "with the options none, now --model.decoder.dim 8;"),
    ):
        assert message in fail(ablate, *OPTIONS, *files, *change)
    with monkeypatch.context() as patch:
        patch.setattr("lightning_xt.__version__", "9.9")
        assert "holds a study with the versions lightning-xt " in fail(ablate, *OPTIONS, *files)
    Path("slow.yaml").write_text("model: {init_args: {decoder: {dim: 8}}}\n")
    assert "in which the overlay slow had other contents" in fail(ablate, *OPTIONS, *files)
    write_overlays("slow")
    Path("base.yaml").write_text("trainer: {max_steps: 4}\n")
    assert "holds a study of another base: base.yaml was another one then" in fail(ablate, *OPTIONS, *files)
    assert sorted((file, file.read_bytes()) for file in Path("study").rglob("*.json")) == before


def test_mistakes_are_one_sentence_and_write_nothing(ablate):
    files = ["--variants", *write_overlays("slow")]
    Path("other").mkdir()
    Path("other/slow.yaml").write_text(Path("slow.yaml").read_text())
    Path("empty.yaml").write_text("")
    for args, message in (
        ([], "ablate needs a base, such as -c language/ablation_base.yaml"),
        (["-c", "base.yaml"], "ablate needs overlays: --variants variants/*.yaml"),
        (["-c", "base.yaml", *files], "ablate needs the budget of each run: --budget bytes=4M"),
        (["-c", "none.yaml", *files, "--budget", "steps=1"], "there is no file none.yaml"),
        ([*OPTIONS, "--variants", "none.yaml"], "there is no file none.yaml"),
        ([*OPTIONS, "--variants", "empty.yaml"], "empty.yaml is not a config: it is empty"),
        ([*OPTIONS, "--variants", "slow.yaml", "other/slow.yaml"], "are two overlays of one name, slow"),
        ([*OPTIONS, "--variants", "base.yaml"], "base is the name of the base; rename the file"),
        ([*OPTIONS, "--variants", "a + b.yaml"], "' + ' joins the names of a combination; rename the file"),
        ([*OPTIONS, "--variants", "none*.yaml"], "none*.yaml matches no file here and no shipped config"),
        ([*OPTIONS, *files, "--budget", "bytes=900"], "--budget bytes=900 pays for no step, which takes 1,024 bytes"),
        ([*OPTIONS, *files, "--seeds", "0"], "ablate --seeds is 0; it must be at least 1"),
        ([*OPTIONS, *files, "--workers", "0"], "ablate --workers is 0; it must be at least 1"),
        ([*OPTIONS, *files, "--threads", "0"], "ablate --threads is 0; it must be at least 1"),
        ([*OPTIONS, *files, "--combine", "2"], "ablate --combine is 2; it must be from 1 to the number of overlays, 1"),
        ([*OPTIONS, *files, "--tune", "lr=1"], "ablate --tune lr=1 does not name learning rates"),
        ([*OPTIONS, *files, "--tune", "lr=a,b"], "ablate --tune lr=a,b does not name learning rates"),
        ([*OPTIONS, *files, "--trainer.max_steps=9"], "ablate --trainer.max_steps: omit it; the budget decides"),
    ):
        assert message in fail(ablate, *args)
        assert not Path("study").exists()
    Path("study").mkdir()
    Path("study/notes.txt").touch()
    assert "holds other files and no plan.json" in fail(ablate, *OPTIONS, *files)
    assert "ablate --out base.yaml is not a folder" in fail(ablate, *OPTIONS, *files, "--out", "base.yaml")
    message = fail(ablate, *OPTIONS, *files, "--out", "base.yaml/study")
    assert message == "ablate --out base.yaml/study cannot be written (Not a directory); give another folder"


def test_workers_take_turns_on_the_gpus(monkeypatch):
    assert [each.device for each in ProcessRunner(3, 1, devices=2)._places] == [0, 1, 0]
    # One worker leaves the choice to the base.
    assert [each.device for each in ProcessRunner(1, 1, devices=2)._places] == [None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    _occupy(Place(1, 1))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5" and os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    _occupy(Place(1, 1))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_workers_divide_the_cores(monkeypatch):
    monkeypatch.setattr(ablation_report, "count_usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [choose_threads(None, workers) for workers in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [choose_threads(None, workers) for workers in (1, 8)] == [2, 1] and choose_threads(5, 1) == 5


def test_two_processes_do_not_continue_one_study(ablate):
    from lightning_xt.commands.ablation.study_folder import StudyFolder

    with StudyFolder(Path("study")).hold():
        message = fail(ablate, *OPTIONS, "--variants", *write_overlays("slow"))
    assert message == "ablate --out study: another process continues the study there; wait for it, or end it"


def test_data_and_base_must_stay(ablate):
    files = ["--variants", *write_overlays("slow")]
    assert "the data of base have changed since the study began" in fail(ablate, *OPTIONS, *files, data="other")

    class Edits(ScriptedRunner):
        def train(self, jobs):
            for each in super().train(jobs):
                Path("base.yaml").write_text("trainer: {max_steps: 4}\n")
                yield each

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation_report, "ProcessRunner", lambda *args: Edits())
        assert main(["ablate", *OPTIONS[:-1], "edited", *files]) == 2
    assert len(list(Path("edited/results").rglob("*.json"))) == 1


def test_a_damaged_result_is_named(ablate):
    files = ["--variants", *write_overlays("slow")]
    ablate(*OPTIONS, *files)
    Path("study/results/repeat/slow-0.json").write_text("{")
    assert "study/results/repeat/slow-0.json cannot be read" in fail(ablate, *OPTIONS, *files)


def test_combinations_join_options(ablate):
    text = "model: {{init_args: {{decoder: {{{}}}}}}}\n"
    Path("one.yaml").write_text(text.format("attention: {position: ALiBi, value_mods: [Laser]}"))
    Path("two.yaml").write_text(text.format("attention: {value_mods: [ValueResidual], kv_heads: 2}, norm: LayerNorm"))
    Path("three.yaml").write_text(text.format("attention: {position: FIRE}"))
    *singles, first, second, third = read_variants(["one.yaml", "two.yaml", "three.yaml"], 2)
    assert [each.name for each in singles] == ["one", "two", "three"] and first.parts == ("one", "two")
    joined = yaml.safe_load(first.text)["model"]["init_args"]["decoder"]
    assert joined["attention"] == {"position": "ALiBi", "value_mods": ["Laser", "ValueResidual"], "kv_heads": 2}
    assert joined["norm"] == "LayerNorm"
    assert second.name == "one + three" and third.error is None
    assert second.error == "one and three choose the same option: there is no room for ALiBi"
    Path("near.yaml").write_text("model: {init_args: {optimizer: {init_args: {betas: [0.8, 0.95]}}}}\n")
    Path("far.yaml").write_text("model: {init_args: {optimizer: {init_args: {betas: [0.95, 0.8], eps: 1.0}}}}\n")
    both = read_variants(["near.yaml", "far.yaml"], 2)[-1]
    assert both.error == "near and far choose the same option: there is no room for betas [0.8, 0.95]"
    runner, _ = ablate(*OPTIONS, "--combine", "2", "--variants", *write_overlays("slow", "fast"))
    rows = read_rows()
    assert "repeat/slow + fast-0" in dict(runner.trained)
    sum_of_parts = float(rows["slow"]["difference"]) + float(rows["fast"]["difference"])
    both = rows["slow + fast"]
    assert float(both["interaction"]) == pytest.approx(float(both["difference"]) - sum_of_parts)
    assert float(both["interaction_margin"]) > 0 and 0 <= float(both["interaction_p_corrected"]) <= 1
    assert "Interaction: a combination's difference" in Path("study/table.md").read_text()


def test_probes_are_columns(ablate):
    Path("recall.yaml").write_text("trainer: {max_steps: 7}\n")
    files = write_overlays("slow", "fast", "late")
    ablate(*OPTIONS, "--variants", *files)
    options = [*OPTIONS, "--variants", *files, "--probes", "recall.yaml"]
    runner, captured = ablate(*options)
    # Each seed in turn, as the config of the probe says.
    names = ["base", "slow", "fast", "late"]
    assert [key for key, _ in runner.trained] == [f"probe-recall/{name}-{seed}" for seed in range(3) for name in names]
    assert dict(runner.trained)["probe-recall/slow-2"] == [
        "-c", "recall.yaml", "-c", "study/overlays/slow.yaml", "--seed_everything=2", "--data.seed=2",
    ]  # fmt: skip
    assert set(runner.wanted.values()) == {("val/exact_match",)}
    # 0.2 better, 0.1 worse.
    cells = {row.split(" | ")[0].strip("| "): row.split(" | ")[-1].strip("| ") for row in captured.out.splitlines()}
    assert {name: cells[name] for name in names} == {
        "base": "0.501", "slow": "0.701 +", "fast": "0.401 -", "late": "failed"
    }  # fmt: skip
    assert "on recall" in captured.out and float(read_rows()["slow"]["recall_mean"]) == pytest.approx(0.701)
    assert read_rows()["late"]["recall_error"] == "no answer; remove results/probe-recall/late-0.json to try again"
    assert 'data-key="0.701' in Path("study/table.html").read_text()
    assert "with --probe_metric" in fail(ablate, *options, "--probe_metric", "val/loss")
    assert "holds a study with recall too; give all of its probes" in fail(ablate, *OPTIONS, "--variants", *files)
    Path("recall.yaml").write_text("trainer: {max_steps: 8}\n")
    assert "in which the probe recall had other contents" in fail(ablate, *options)
    message = fail(ablate, *options, "--probe_metric", "accuracy")
    assert message == "ablate --probe_metric accuracy is not that of a split; give val/... or test/..."
    Path("other").mkdir()
    Path("other/recall.yaml").write_text("trainer: {max_steps: 8}\n")
    assert "are two probes of one name, recall; rename one" in fail(ablate, *options, "other/recall.yaml")


def test_an_overlay_that_changes_nothing_is_named(ablate, monkeypatch):
    monkeypatch.setattr(ScriptedRunner, "make_result", lambda self, run, options, own=ScriptedRunner.make_result: own(
        self, replace(run, variant="base"), options) if run.variant == "none" else own(self, run, options))  # fmt: skip
    ablate(*OPTIONS, "--variants", *write_overlays("slow", "none"))
    rows = read_rows()
    assert rows["none"]["verdict"] == "the same as the base" and rows["none"]["p_corrected"] == ""
    # One row is tested.
    assert rows["slow"]["p_corrected"] == rows["slow"]["p"]


def test_overlays_are_found_by_pattern_those_of_the_folder_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [each.name for each in read_variants(["variants/al*.yaml", "configs/variants/mqa.yaml"], 1)]
    assert names == ["alibi", "mqa"]
    Path("variants").mkdir()
    for name in ("alone", "along"):
        Path(f"variants/{name}.yaml").write_text("trainer: {max_steps: 1}\n")
    names = [each.name for each in read_variants(["variants/al*.yaml", "variants/alibi.yaml"], 1)]
    assert names == ["alone", "along", "alibi"]


def test_a_combination_that_is_one_of_its_parts_says_so():
    Path("one.yaml").write_text("model: {init_args: {decoder: {attention: {position: ALiBi}, embeddings: [Smear]}}}\n")
    Path("two.yaml").write_text("model: {init_args: {decoder: {embeddings: [Smear]}}}\n")
    joined = read_variants(["one.yaml", "two.yaml"], 2)[-1]
    assert joined.error == "one and two together are only one"


def test_the_page_escapes_and_needs_nothing_from_outside(ablate):
    ablate(*OPTIONS, "--variants", *write_overlays("slow", "a&b"))
    page = Path("study/table.html").read_text()
    assert "The idea slow &lt;b&gt;." in page and "<b>" not in page and "a&amp;b" in page
    assert "http" not in page.replace("http-equiv", "") and "default-src 'none'" in page
    assert re.search(r'<tr class="better"><td data-key="slow">', page)
    keys = re.findall(r'data-key="(2\.8[^"]*)"', page)
    assert float(keys[0]) == float(read_rows()["slow"]["mean"])


def test_a_plot_and_tensorboards_table(ablate):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ablate(*OPTIONS, "--variants", *write_overlays("slow"), draws=True)
    assert Path("study/table.svg").read_text().startswith("<?xml")
    events = EventAccumulator("study/tensorboard/repeat/slow-0").Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    # Points are float32.
    assert events.Scalars("val/bits_per_byte")[0].value == pytest.approx(
        float(read_rows()["slow"]["values"].split()[0]), rel=1e-6
    )
    assert not Path("study/tensorboard/half").exists()


def test_a_row_that_is_far_worse_leaves_the_others_room(ablate, monkeypatch):
    figures = []
    monkeypatch.setattr(ablation_report, "write_plot", lambda figure, *args: figures.append(figure))
    for name in ("same", "fast"):
        monkeypatch.setitem(GAINS, name, 0.05 if name == "same" else 2.0)
        ablate(*OPTIONS[:-1], name, "--variants", *write_overlays(name), draws=True)
    assert [each.axes[0].get_yscale() for each in figures] == ["linear", "symlog"]
    assert [text.get_text() for text in figures[1].axes[0].texts] == ["fast"]


TINY = """
data:
  class_path: TextFiles
  init_args: {path: corpus.txt, seq_len: 128, batch_size: 32, eval_batch_size: 32}
model:
  class_path: LanguageModel
  init_args:
    decoder: {dim: 16, depth: 1, attention: {heads: 2}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.01}}
trainer: {accelerator: cpu, max_steps: 5}
"""
REAL = ["-c", "tiny.yaml", "--variants", "variants/alibi.yaml", "variants/swiglu.yaml", "uneven.yaml", "--seeds", "2"]
REAL += ["--floor", "2", "--threads", "1", "--budget", "bytes=64k", "--out"]


def write_tiny():
    words, draw = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs"], random.Random(0)
    lines = (" ".join(draw.choices(words, k=9)) for _ in range(1500))
    Path("corpus.txt").write_text("\n".join(lines))
    Path("tiny.yaml").write_text(TINY)
    Path("uneven.yaml").write_text("model: {init_args: {decoder: {attention: {heads: 7}}}}\n")


def test_three_overlays_are_trained(capsys, monkeypatch):
    write_tiny()
    # Times are not what this is about.
    monkeypatch.setattr(process_runner, "WARM_UP", 0)
    monkeypatch.setattr(ablation_report, "ProcessRunner", lambda *args: ProcessRunner(*args, slices=1))
    assert main(["ablate", *REAL, "real"]) == 0
    rows = read_rows("real")
    assert rows.keys() == {"base", "alibi", "swiglu", "uneven"}
    assert rows["uneven"]["verdict"].startswith("failed: attention: dim (16) must be a multiple of heads (7)")
    assert all(len(rows[name]["values"].split()) == 2 and rows[name]["steps"] == "15" for name in ("alibi", "swiglu"))
    with open("real/runs.csv", newline="") as file:
        runs = {row["run"]: row for row in csv.DictReader(file)}
    assert runs["repeat/alibi-0"]["bytes"] == str(15 * 4096) and int(rows["swiglu"]["parameters"]) > 11_000
    # In the same test, for the first process imports everything.
    for target, sentence in (
        (die, "its process was killed (SIGKILL), as the system does if memory is short"),
        (leave, "its process ended with code 3"),
        (fail_in_process, "ZeroDivisionError: of a bug"),
    ):
        child = ChildProcess(target, (), Place(1))
        with pytest.raises(RunError) as caught:
            child.receive()
        child.end()
        assert str(caught.value) == sentence
    assert "before the end" in caught.value.output and "Traceback" in caught.value.output


FIT = """
import sys
import lightning_xt.commands.ablation.preloaded
from lightning_xt.commands.trainer.results import collect_metrics
from lightning_xt.commands.trainer.run_trainer import train
if __name__ == "__main__":
    metrics = collect_metrics(train("fit", sys.argv[1:]).trainer, "val/")
    print("metrics", *(f"{name}={value!r}" for name, value in metrics.items()))
"""


@pytest.mark.slow
def test_a_run_is_that_of_fit_bit_for_bit():
    write_tiny()
    assert main(["ablate", *REAL, "real", "--seeds", "1"]) == 0
    run = json.loads(Path("real/results/repeat/alibi-0.json").read_text())
    command = ["-c", "tiny.yaml", "-c", "variants/alibi.yaml", "--seed_everything=0", "--data.seed=0"]
    command += ["--trainer.max_steps=15", "--trainer.logger=false", "--sample_text=null"]
    done = subprocess.run([sys.executable, "-c", FIT, *command], capture_output=True, text=True, check=True)
    found = [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("metrics ")]
    assert found == [{f"{name}={value!r}" for name, value in run["metrics"].items()}]


@pytest.mark.slow
def test_a_study_killed_at_any_moment_gives_the_same_table_bit_for_bit():
    write_tiny()
    command = [sys.executable, "-m", "lightning_xt", "ablate", *REAL]
    subprocess.run([*command, "whole"], check=True, capture_output=True)
    total = count_results("whole")
    seed = time.time_ns()
    print("seed of the kills:", seed)
    draw = random.Random(seed)
    # Each after a number of results, then at any moment of the next run; the first one among the measurements.
    for most in (-1, *sorted(draw.sample(range(1, total - 1), 2))):
        with subprocess.Popen([*command, "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while count_results("killed") < max(0, most) or not Path("killed/speed/base.json").exists():
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.2))
            process.kill()
        assert max(0, most) <= count_results("killed") < total
    subprocess.run([*command, "killed"], check=True, capture_output=True)
    # The tables have all digits of the numbers.
    assert read_quality("killed") == read_quality("whole")
    rows = read_rows("killed")
    assert rows["alibi"]["values"] == " ".join(
        repr(json.loads(Path(f"whole/results/repeat/alibi-{seed}.json").read_text())["metrics"]["val/bits_per_byte"])
        for seed in range(2)
    )


def count_results(folder):
    return len(list(Path(folder).glob("results/*/*.json")))
