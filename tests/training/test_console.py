"""Text that `fit` prints: the banner, a line for each logged step, and bars that fit the terminal."""

import re
import time

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_xt.cli import main
from lightning_xt.data.custom_data import CustomData
from lightning_xt.data.pairs.copy_task import CopyTask
from lightning_xt.data.pairs.generator_pairs import GeneratorPairs
from lightning_xt.system import time_left
from lightning_xt.system.core_use import CoreUse
from lightning_xt.training.callbacks import start_banner, step_progress_bar
from lightning_xt.training.callbacks.step_progress_bar import StepProgressBar

BAR = "--trainer.enable_progress_bar=true"


def test_cases_n4_four_lines_before_the_first_step(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--trainer.accumulate_grad_batches", "3", "--trainer.max_steps", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"model:  LanguageModel, [\d,]+ parameters", lines[0])
    assert re.fullmatch(r"device: cpu \(\d+ threads?\), precision 32-true", lines[1])
    # 20 lines of 44 bytes, less the validation split; rows of 8, 2 in a batch, 3 batches.
    assert re.fullmatch(r"data:   TextFiles, \d+ tokens, 48 tokens a step, 3 steps", lines[2])
    assert 700 < int(lines[2].split()[2]) < 880
    assert lines[3] == "run:    runs/tiny/0"
    assert lines[4].startswith(("sample:", "step "))


def test_cases_n4_the_first_line_waits_for_no_data(fresh, monkeypatch, capsys):
    seconds = []
    monkeypatch.setattr(start_banner, "_print", lambda name, text: seconds.append((name, time.process_time())))
    begun = time.process_time()
    # The text is missed once it is read.
    assert main(["fit", "-c", "tiny.yaml", "--data.path", "missing.txt"]) == 2
    assert [name for name, _ in seconds] == ["model", "device"]
    assert seconds[0][1] - begun < 2


def test_cases_n4_the_size_of_other_data(finished_pairs, tmp_path, monkeypatch, capsys):
    copied = CopyTask(task="copy_twice", num_symbols=9, min_length=3, max_length=5, batch_size=7)
    assert copied.describe_size(2) == "endless pairs, at most 154 target tokens a step"
    drawn = GeneratorPairs("my_task.cycle", source_vocab_size=9, target_vocab_size=9)
    assert drawn.describe_size(1) == "endless pairs, 1 batch of the function a step"
    assert drawn.describe_size(4) == "endless pairs, 4 batches of the function a step"
    items = CustomData(lambda: TensorDataset(torch.ones(11, 3)), vocab={"target": 9}, batch_size=4)
    assert items.describe_size(3) == "11 items, 12 items a step"
    monkeypatch.chdir(tmp_path)
    config = finished_pairs / "pairs.yaml"
    for file in finished_pairs.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert main(["fit", "-c", str(config), "--trainer.max_steps=1", "--model.schedule=null"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data:")]
    assert re.search(r", \d+ pairs, at most [\d,]+ tokens a step on each side, 1 step", line)


@pytest.mark.parametrize("every", [2, 0])
def test_cases_n4_a_redirected_log_has_a_line_for_each_logged_step(every, fresh, capsys):
    options = [BAR, f"--trainer.log_every_n_steps={every}", "--trainer.accumulate_grad_batches=2"]
    assert main(["fit", "-c", "tiny.yaml", *options]) == 0
    steps = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line[0] for line in steps if "val/loss" not in " ".join(line)] == (
        ["step 2/6", "step 4/6", "step 6/6"] if every else []
    )
    assert [line[0] for line in steps if "val/loss" in " ".join(line)] == ["step 4/6", "step 6/6"]
    if every:
        assert re.fullmatch(r"train/loss \d\.\d{4}", steps[0][1])
        assert re.fullmatch(r"[\d,]+ tokens/s", steps[0][2])
        assert re.fullmatch(r"0:\d\d:\d\d left", steps[0][3])
        assert "left" not in " ".join(steps[-1])


def test_a_long_evaluation_without_a_terminal_says_how_long_it_takes(trained, monkeypatch, capsys):
    monkeypatch.setattr(time_left, "FIRST", 0.0)
    lines = {"validate": "validation", "test": "test"}
    for command, what in lines.items():
        assert main([command, "runs/tiny", BAR]) == 0
        assert re.search(rf"^{what}: \d+ %, 0:\d\d:\d\d left$", capsys.readouterr().out, re.MULTILINE)
    predict = ["predict", "runs/tiny", "--data.predict_prompts=prompts.txt", "--output=out.jsonl"]
    assert main([*predict, BAR]) == 0
    # One batch, after which no time is left.
    assert "prediction: " not in capsys.readouterr().out
    predict += ["--data.eval_batch_size=2"]
    assert main([*predict, BAR]) == 0
    assert re.findall(r"^prediction: (\d+ %), 0:\d\d:\d\d left$", capsys.readouterr().out, re.MULTILINE) == ["50 %"]
    assert main([*predict, BAR.replace("true", "false")]) == 0
    assert "prediction: " not in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 60, 200])
def test_cases_n4_bars_fit(width, fresh, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(StepProgressBar, "refresh_rate", 1)
    assert main(["fit", "-c", "tiny.yaml", BAR, "--trainer.max_steps", "12"]) == 0
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out)
    bars = [line for line in re.split(r"[\r\n]", plain) if re.search("[━╸╺]", line)]
    assert max(map(len, bars)) <= width
    assert all(re.search(r"\d+/\d+ ", bar) for bar in bars)
    last = [bar for bar in bars if bar.startswith("Training") and "12/12" in bar][-1]
    assert re.search(r" loss: \d\.\d{3}\b", last)
    assert ("tokens/s: " in last) == (width >= 80)
    assert ("val/bits_per_byte: " in last) == (width >= 200)


class BusyMachine:
    """Meter of a machine on which another process uses one of two cores."""

    elapsed = 10.0

    def __init__(self, **options):
        pass

    def measure(self):
        return CoreUse(1.0, 0.96, 2)


@pytest.mark.parametrize("threads", [2, 1])
def test_a_line_says_when_other_processes_take_cores(threads, fresh, monkeypatch, capsys):
    monkeypatch.setattr(step_progress_bar, "CoreMeter", BusyMachine)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert main(["fit", "-c", "tiny.yaml", BAR]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert len(lines) == 8
    # One thread has a core besides that of the other process.
    assert [line.endswith("  other processes use 1.0 of 2 cores") for line in lines] == [threads == 2] * 8
    assert any("other processes" in line for line in lines) == (threads == 2)


@pytest.mark.parametrize("width", [80, 200])
def test_the_bar_says_when_other_processes_take_cores(width, fresh, monkeypatch, capsys):
    monkeypatch.setattr(step_progress_bar, "CoreMeter", BusyMachine)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(StepProgressBar, "refresh_rate", 1)
    assert main(["fit", "-c", "tiny.yaml", BAR, "--trainer.max_steps", "12"]) == 0
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out)
    lines = re.split(r"[\r\n]", plain)
    assert sum(line.strip() == "other processes use 1.0 of 2 cores, so that training is slower" for line in lines) == 1
    bars = [line for line in lines if re.search("[━╸╺]", line)]
    assert max(map(len, bars)) <= width
    assert any("other processes: 1.0 of 2 cores" in bar for bar in bars) == (width >= 200)
