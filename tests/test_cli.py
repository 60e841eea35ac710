"""The command line from outside: output, files and messages."""

import errno
import importlib
import io
import json
import math
import os
import pkgutil
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import warm
import yaml
from jsonargparse._deprecated import JsonargparseDeprecationWarning
from tiny_run import TIMES, TINY, list_names, load_weights, read_rows

from lightning_xt import commands
from lightning_xt.cli import main
from lightning_xt.commands.models.import_lightning import import_lightning
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.system.messages import explain_error
from lightning_xt.system.option_checks import check_option
from lightning_xt.training.language_model import LanguageModel


def test_a_run_folder_holds_what_it_should(finished):
    run = finished / "runs" / "tiny" / "0"
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.")}
    assert len(events) == 1
    assert names - events == {
        "config.yaml",
        "metrics.csv",
        "samples.txt",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert yaml.safe_load((run / "config.yaml").read_text())["name"] == "tiny"
    samples = (run / "samples.txt").read_text()
    assert samples.count("=== step 4 ===\na") == samples.count("=== step 6 ===\na") == 1


def test_the_metrics_of_a_run(trained):
    table = read_rows()
    assert [int(row["step"]) for row in table] == [1, 2, 3, 4, 5, 6]
    assert all(row["train/loss"] and row["optim/grad_norm"] and row["speed/tokens_per_second"] for row in table)
    assert [float(row["optim/lr"]) for row in table][:3] == pytest.approx([0.0005, 0.001, 0.001])
    assert [int(row["step"]) for row in table if row["val/loss"]] == [4, 6]  # every 4, and the last


def test_the_last_lines_of_each_command(trained, capsys):
    assert main(["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run=runs/tiny/0"
    assert [line.split("=")[0] for line in lines[1:]] == ["val/loss", "val/perplexity", "val/bits_per_byte"]
    assert float(lines[3].split("=")[1]) == pytest.approx(float(lines[1].split("=")[1]) / math.log(2), abs=2e-6)
    best = min(float(row["val/loss"]) for row in read_rows() if row["val/loss"])
    assert lines[1] == f"val/loss={best:.6f}"
    assert main(["test", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("test/bits_per_byte=")
    # Neither command fails because the run has a config, nor overwrites it.
    assert {"config.yaml", "config.validate.0.yaml", "config.test.0.yaml"} <= list_names("runs/tiny/0")
    assert len(list(Path("runs/tiny/0").glob("events.*"))) == 1


def test_a_checkpoint_alone_is_enough_to_validate(trained, capsys):
    assert main(["validate", "--ckpt_path", "runs/tiny"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "run=runs/tiny/0"


def test_fit_prints_the_number_of_the_best_checkpoint(fresh, capsys):
    # The rate makes the last step worse than the earlier validation.
    steps = ["--trainer.max_steps", "5", "--model.optimizer.lr", "3", "--model.schedule", "null"]
    assert main(["fit", "-c", "tiny.yaml", *steps, "--validate_every", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    losses = [float(row["val/loss"]) for row in read_rows()]
    assert losses[-1] > min(losses)
    assert f"val/loss={min(losses):.6f}" in lines
    assert any(line.startswith("sample: ") and "runs/tiny/0" in line for line in lines)


def test_a_run_is_resumed_in_place_and_exactly(trained, capsys):
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "9"]) == 0
    assert "run=runs/tiny/0" in capsys.readouterr().out
    assert [int(row["step"]) for row in read_rows()] == list(range(1, 10))
    assert Path("runs/tiny/0/config.fit.0.yaml").is_file()
    assert sorted(list_names("runs/tiny")) == ["0"]


def test_stopping_and_resuming_changes_nothing(fresh):
    whole = ["fit", "-c", "tiny.yaml", "--trainer.max_steps", "8", "--validate_every", "2"]
    assert main([*whole, "--name", "whole"]) == 0
    # Stops at the first validation.
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    stop += ["--trainer.callbacks.stopping_threshold=100"]
    assert main([*whole, "--name", "part", *stop]) == 0
    assert torch.load("runs/part/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    assert main([*whole, "--name", "part", "--ckpt_path", "last"]) == 0
    left, right = load_weights("runs/whole/0"), load_weights("runs/part/0")
    assert all(torch.equal(left[name], right[name]) for name in left)
    for one, other in zip(read_rows("runs/whole/0"), read_rows("runs/part/0"), strict=True):
        assert one | TIMES == other | TIMES


def test_a_run_that_crashed_resumes_from_its_last_checkpoint(fresh, monkeypatch):
    options = ["fit", "-c", "tiny.yaml", "--trainer.max_steps", "8", "--validate_every", "2", "--checkpoint_every", "2"]
    assert main([*options, "--name", "whole"]) == 0
    step = LanguageModel.training_step

    def crash(self, batch, batch_idx):
        if self.global_step == 5:
            raise RuntimeError("power cut")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "training_step", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            main([*options, "--name", "part"])
    assert torch.load("runs/part/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert main([*options, "--name", "part", "--ckpt_path", "last"]) == 0
    left, right = load_weights("runs/whole/0"), load_weights("runs/part/0")
    assert all(torch.equal(left[name], right[name]) for name in left)
    for one, other in zip(read_rows("runs/whole/0"), read_rows("runs/part/0"), strict=True):
        assert one | TIMES == other | TIMES


def test_without_validation_checkpoints_are_saved_in_time(fresh, monkeypatch):
    step = LanguageModel.training_step

    def crash(self, batch, batch_idx):
        if self.global_step == 5:
            raise RuntimeError("power cut")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LanguageModel, "training_step", crash)
    options = ["--data.validation", "0", "--validate_every", "2", "--checkpoint_every", "2"]
    with pytest.raises(RuntimeError, match="power cut"):
        main(["fit", "-c", "tiny.yaml", *options])
    assert torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


LEARNED = "--model.decoder.embeddings=[{class_path: LearnedPositions, init_args: {max_length: %d}}]"


def test_samples_end_where_the_positions_do(fresh):
    options = [LEARNED % 8, "--sample_text.generation.max_new_tokens", "100", "--sample_text.prompts", "[ab]"]
    assert main(["fit", "-c", "tiny.yaml", *options, "--validate_every", "6"]) == 0
    sample = Path("runs/tiny/0/samples.txt").read_text(encoding="utf-8")
    assert sample.startswith("=== step 6 ===\nab")
    assert len(sample.removeprefix("=== step 6 ===\nab").removesuffix("\n\n")) <= 6


def test_a_sample_prompt_must_leave_room(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", LEARNED % 8, "--sample_text.prompts", "[abcdefgh]"]) == 2
    assert (
        "sample_text.generation.max_new_tokens, because the model's positions reach only 8 (max_length)"
        in capsys.readouterr().err
    )
    assert not Path("runs").exists()


def test_a_first_batch_that_fails_leaves_no_run(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", LEARNED % 5]) == 2
    assert "LearnedPositions has max_length 5" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_command_that_fails_leaves_a_run_as_it_was(trained, capsys):
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    config = ["-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--model.decoder.dim", "16"]
    assert main(["fit", *config, "--trainer.max_steps", "8"]) == 2
    assert main(["validate", *config]) == 2
    assert "whose weights do not fit this command's LanguageModel" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


def test_a_resume_whose_first_batch_fails_leaves_the_run_as_it_was(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", LEARNED % 8, "--trainer.max_steps", "3"]) == 0
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    resume = ["-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]
    assert main(["fit", *resume, "--data.seq_len", "20"]) == 2
    assert "LearnedPositions has max_length 8" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


def test_epochs_count_where_their_length_is_limited(fresh, capsys):
    options = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "4", "--trainer.enable_progress_bar=true"]
    assert main(["fit", "-c", "tiny.yaml", *options, "--validate_every", "2"]) == 0
    out = capsys.readouterr().out
    assert "at most 6 steps" in out and "step 4/4  " in out and "/6" not in out
    # The schedule ends with the run: a tenth of the learning rate.
    assert float(read_rows()[-1]["optim/lr"]) == pytest.approx(1e-4)
    assert torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_ckpt_path_last_starts_a_run_without_a_checkpoint(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", "--ckpt_path", "last", "--trainer.max_steps", "3"]) == 0
    out = capsys.readouterr().out
    assert "no run in runs/tiny has one yet; starting a new run" in out
    assert main(["fit", "-c", "tiny.yaml", "--ckpt_path", "last", "--trainer.max_steps", "4"]) == 0
    assert sorted(list_names("runs/tiny")) == ["0"]


def test_another_config_starts_a_separate_run_from_a_checkpoint(trained, capsys):
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    shutil.copy("tiny.yaml", "other.yaml")
    checkpoint = ["--ckpt_path", "runs/tiny/0/checkpoints/last.ckpt", "--trainer.max_steps", "8"]
    assert main(["fit", "-c", "other.yaml", *checkpoint]) == 0
    assert "run=runs/other/0" in capsys.readouterr().out
    assert [int(row["step"]) for row in read_rows("runs/other/0")] == [7, 8]
    assert all(path.read_bytes() == content for path, content in before.items())
    # Without a config, or with the run's config, the run resumes in place.
    assert main(["fit", *checkpoint]) == 0
    assert "run=runs/tiny/0" in capsys.readouterr().out
    assert main(["fit", "-c", str(trained / "runs" / "tiny" / "0" / "config.yaml"), *checkpoint[:-1], "9"]) == 0
    assert capsys.readouterr().out.count("tiny/0") >= 1
    assert sorted(list_names("runs/tiny")) == ["0"]


def test_each_run_gets_the_next_number(trained, capsys):
    for _ in range(2):
        assert main(["fit", "-c", "tiny.yaml", "--trainer.max_steps", "3"]) == 0
    assert sorted(list_names("runs/tiny")) == ["0", "1", "2"]
    assert main(["fit", "-c", "runs/tiny/1/config.yaml", "--name", "other"]) == 0
    assert "run=runs/other/0" in capsys.readouterr().out


def test_flags_win_over_the_checkpoint(trained, capsys):
    flags = ["--trainer.max_steps", "8", "--model.optimizer.lr", "0.125", "--model.decoder.dropout", "0.5"]
    assert main(["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", *flags]) == 0
    assert "--model.decoder.dropout is 0.5 here, 0.2 in the checkpoint" in capsys.readouterr().out
    checkpoint = torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["decoder"]["init_args"]["dropout"] == 0.5
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 0.125


def test_sampling_changes_no_training_result(fresh):
    assert main(["fit", "-c", "tiny.yaml", "--name", "with"]) == 0
    assert main(["fit", "-c", "tiny.yaml", "--name", "without", "--sample_text.prompts", "[]"]) == 0
    left, right = load_weights("runs/with/0"), load_weights("runs/without/0")
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert Path("runs/with/0/samples.txt").exists()
    assert not Path("runs/without/0/samples.txt").exists()


def test_overlays_and_dotted_overrides(fresh, capsys):
    (fresh / "alibi.yaml").write_text("model: {init_args: {decoder: {attention: {position: ALiBi}}}}")
    options = ["-c", "tiny.yaml", "-c", "alibi.yaml", "--model.decoder.dim", "64"]
    assert main(["fit", *options, "--model.decoder.feedforward=SwiGLU", "--print_config"]) == 0
    decoder = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["decoder"]["init_args"]
    assert decoder["dim"] == 64
    assert decoder["attention"]["init_args"]["heads"] == 2
    assert decoder["attention"]["init_args"]["position"]["class_path"].endswith("ALiBi")
    assert decoder["feedforward"]["class_path"].endswith("SwiGLU")


def test_generate_continues_a_prompt(trained, capsys):
    command = ["generate", "runs/tiny", "--prompt", "the ü", "--max_new_tokens", "12", "--top_k", "5", "--seed", "3"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert first.startswith("the ü")
    assert first.endswith("\n")
    assert main(command) == 0
    assert capsys.readouterr().out == first
    assert main([*command[:-1], "4"]) == 0
    assert capsys.readouterr().out != first


def test_predict_writes_json_lines_in_order(trained, capsys):
    command = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best", "--data.batch_size", "2"]
    assert main([*command, "--data.predict_prompts", "prompts.txt", "--output", "out.jsonl"]) == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == ["fox", "the lazy", "ü"]
    assert [line["id"] for line in lines] == [0, 1, 2]
    assert lines[0]["settings"]["max_new_tokens"] == 4
    assert all("text" in line for line in lines)
    assert not list(Path().glob("out.jsonl.part*"))


MISTAKES = [
    ("fot", "unknown command 'fot'; did you mean fit or from-xt or info?"),
    ("fit", "fit needs a config, such as -c language/quickstart.yaml"),
    ("fit --name mine", "there is no data: give -c language/quickstart.yaml"),
    ("fit --data TextFiles --data.path corpus.txt", "fit would train its default model"),
    ("fit -c nope.yaml", "nope.yaml; check the path given to -c or --config (lightning-xt fit without options lists"),
    ("fit -c quikstart.yaml", "quikstart.yaml; did you mean language/quickstart.yaml? check the path"),
    ("fit -c tiny.yaml stray", "stray"),
    (
        "fit -c tiny.yaml --model.decoder.attention.position ALiBii",
        "--model.decoder.attention.position: unknown Position class 'ALiBii'; did you mean ALiBi or HardALiBi?",
    ),
    ("fit -c tiny.yaml --data TextFile", "--data: unknown DataModule class 'TextFile'; did you mean TextFiles?"),
    ("fit -c tiny.yaml --model.optimizer Adamm", "unknown Optimizer class 'Adamm'; did you mean Adam"),
    ("fit -c tiny.yaml --model.optimizer no.such.Class", "No module named 'no'"),
    (
        "fit -c tiny.yaml --trainer.max_stepss 2",
        "unknown option '--trainer.max_stepss'; did you mean --trainer.max_steps",
    ),
    ("fit -c tiny.yaml --model.optimizer.lrr 2", "unknown option of AdamW 'lrr'; did you mean lr?"),
    ("fit -c tiny.yaml --optimizer AdamWW", "unknown option '--optimizer'; did you mean --model.optimizer?"),
    ("fit -c tiny.yaml --optimizer.lr 1", "unknown option '--optimizer'; did you mean --model.optimizer?"),
    ("fit -c tiny.yaml --lr 1", "unknown option '--lr'; did you mean --model.optimizer.lr?"),
    ("fit -c tiny.yaml --seq_len 8", "unknown option '--seq_len'; did you mean --data.seq_len?"),
    ("fit -c tiny.yaml --standard.preemption.every 3", "unknown option of Preemption 'every'; it has no options"),
    ("fit -c tiny.yaml --model.decoder.attention.hads 2", "hads"),
    ("fit -c tiny.yaml --model.decoder.attention.heads x", "--model.decoder.attention.heads: expected int, not 'x'"),
    ("fit -c tiny.yaml --model.decoder.attention.backend fast", "expected one of 'auto', 'fused', 'flex', 'explicit'"),
    ("fit -c tiny.yaml --model.decoder.attention.heads 3", "dim (8) must be a multiple of heads (3)"),
    ("fit -c tiny.yaml --model.decoder.attention.heads 4 --model.decoder.attention.kv_heads 3", "kv_heads (3)"),
    ("fit -c tiny.yaml --trainer.max_steps -1", "trainer.max_steps is -1"),
    ("fit -c tiny.yaml --trainer.max_steps 2", "warmup_steps 2"),
    ("fit -c tiny.yaml --trainer.accelerator gpu --trainer.devices 99", "trainer"),
    ("fit -c tiny.yaml --trainer.default_root_dir corpus.txt", "the run folder corpus.txt/tiny/0 cannot be made"),
    ("fit -c tiny.yaml --data.path missing.txt", "--data.path missing.txt: no such file"),
    ("fit -c tiny.yaml --data.seq_len 5000", "data.seq_len 5000 needs at least 5001 tokens"),
    ("fit -c tiny.yaml --validate_every 0", "--validate_every is 0"),
    ("fit -c tiny.yaml --sample_text.generation.max_new_tokens 0", "sampling has max_new_tokens 0"),
    ("fit -c tiny.yaml --sampling.temperature -1", "temperature -1"),
    ("fit -c tiny.yaml --sampling.top_k 0", "filters: TopK (top_k) has k 0, which must be at least 1"),
    ("fit -c tiny.yaml --sample_text.generation.top_p 2", "filters: TopP (top_p) has p 2"),
    ("fit -c tiny.yaml --sample_text.generation.min_p -1", "filters: MinP (min_p) has p -1"),
    ("fit -c tiny.yaml --ckpt_path nope.ckpt", "nope.ckpt is not a run"),
    ("fit -c tiny.yaml --ckpt_path bad.ckpt", "bad.ckpt cannot be read as a checkpoint"),
    ("validate -c tiny.yaml", "validate needs weights"),
    ("validate -c tiny.yaml --ckpt_path best", "there is no runs/tiny/0/checkpoints/best.ckpt"),
    ("predict -c tiny.yaml --ckpt_path best --output x", "there is no runs/tiny/0/checkpoints/best.ckpt"),
    ("generate nope --prompt x", "nope is not a run: there is no such folder or file"),
    ("generate . --prompt x", ". is not a run: neither it nor a numbered folder in it has"),
    ("generate corpus.txt --prompt x", "corpus.txt is not a run: it is a file, but not a checkpoint"),
    ("generate bad.ckpt --prompt x", "bad.ckpt cannot be read as a checkpoint: it is not in the format of torch.save"),
    ("generate x --promt x", "did you mean --prompt?"),
    ("generate x", "x is not a run: there is no such folder or file"),
    ("generate x --prompt a --max_new_tokens ten", "--max_new_tokens: expected int, not 'ten'\n"),
    ("fit -c tiny.yaml --trainer.max_epochs 3", "use --trainer.max_steps"),
    ("fit -c tiny.yaml --trainer.val_check_interval 3", "use --validate_every"),
    ("fit -c tiny.yaml --trainer.check_val_every_n_epoch 2", "use --validate_every"),
    (
        "fit -c tiny.yaml --model.optimizer Muon",
        "optimizer: Muon cannot be built for this model: Muon only",
    ),
    ("fit -c tiny.yaml --model.optimizer LBFGS", "optimizer: LBFGS cannot be built for this model"),
    ("fit -c tiny.yaml --model.optimizer.lr -1", "optimizer: AdamW cannot be built"),
    ("fit -c tiny.yaml --data.path empty.txt", "empty.txt: the file is empty; give text"),
]


# The checks' messages are tested with the checks; that commands show them is tested in the slow suite only.
AT_THE_CHECK = (
    "heads 3",
    "kv_heads 3",
    "--data.seq_len 5000",
    "--sample_text.generation.max_new_tokens 0",
    "--sampling.temperature -1",
    "--sampling.top_k 0",
    "--sample_text.generation.top_p 2",
    "--sample_text.generation.min_p -1",
    "--data.path empty.txt",
    "--model.optimizer Muon",
    "--model.optimizer LBFGS",
    "--ckpt_path bad.ckpt",
)


@pytest.mark.parametrize(
    ("command", "part"),
    [
        pytest.param(*each, id=each[0], marks=pytest.mark.slow if each[0].endswith(AT_THE_CHECK) else ())
        for each in MISTAKES
    ],
)
def test_a_mistake_gives_one_sentence(command, part, fresh, capsys):
    (fresh / "bad.ckpt").write_text("no checkpoint")
    (fresh / "empty.txt").touch()
    before = sorted(fresh.rglob("*"))
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("lightning-xt: error: ")
    assert part in captured.err
    assert len(captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err
    assert sorted(fresh.rglob("*")) == before


@pytest.mark.parametrize(
    ("right", "wrong", "part"),
    [
        ("model:", "modle:", "unknown option '--modle'; did you mean --model"),
        ("model:", "zzzzzz:", "unknown option '--zzzzzz'; there is --checkpoint_every"),
        ("validate_every", "validate_evry", "did you mean --validate_every?"),
        ("max_steps", "max_stepss", "did you mean --trainer.max_steps"),
        ("dim: 8", "dimm: 8", "unknown option of Decoder 'dimm'; did you mean dim?"),
        ("heads: 2", "heads: two", "--model.decoder.attention.heads: expected int, not 'two'"),
        ("class_path: TextFiles", "class_path: TextFile", "did you mean TextFiles?"),
        ("heads: 2}}", "heads: 2}", "wrong.yaml is not YAML: "),
        (TINY, "- 1", "wrong.yaml is not a config: it holds a list"),
        ("corpus.txt", "\udcff", "wrong.yaml: byte 51 is not UTF-8"),
    ],
)
def test_a_mistake_in_a_config_gives_one_sentence(right, wrong, part, fresh, capsys):
    text = TINY.replace(right, wrong, 1)
    assert text != TINY
    (fresh / "wrong.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main(["fit", "-c", "wrong.yaml"]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert len(error.splitlines()) == 1
    assert len(error) < 600
    assert not Path("runs").exists()


def test_intervals_of_a_saved_config_are_accepted(trained):
    config = yaml.safe_load(Path("runs/tiny/0/config.yaml").read_text())
    assert not {"val_check_interval", "check_val_every_n_epoch"} & set(config["trainer"])
    # Runs of earlier versions have these values.
    config["trainer"] |= {"val_check_interval": 4, "check_val_every_n_epoch": None}
    Path("runs/tiny/0/config.yaml").write_text(yaml.safe_dump(config))
    resume = ["-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]
    assert main(["fit", *resume, "--validate_every", "2"]) == 0
    assert [int(row["step"]) for row in read_rows() if row["val/loss"]] == [4, 6, 8]


POSITION = """
from lightning_xt.nn.positions.alibi import ALiBi


class Mine(ALiBi):
    \"\"\"A position of the user's.\"\"\"
"""


def test_a_class_of_the_current_folder_trains_and_generates(fresh):
    # As the console script starts: Python puts the script's folder into the path, not the current one. In a separate
    # process, or the class would be a variant in all later tests.
    script = "import sys; sys.path.remove(''); from lightning_xt.cli import main; sys.exit(main(sys.argv[1:]))"
    (fresh / "my_positions.py").write_text(POSITION)
    options = ["--model.decoder.attention.position", "my_positions.Mine", "--trainer.max_steps", "2"]
    for command in (
        ["fit", "-c", "tiny.yaml", *options, "--model.schedule", "null"],
        ["generate", "runs/tiny", "--prompt", "a", "--max_new_tokens", "3"],
    ):
        done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_a_prompt_too_long_for_the_positions(fresh, capsys):
    assert main(["fit", "-c", "tiny.yaml", LEARNED % 8, "--trainer.max_steps", "3"]) == 0
    capsys.readouterr()
    assert main(["generate", "runs/tiny", "--prompt", "longer than eight", "--max_new_tokens", "3"]) == 2
    error = capsys.readouterr().err
    assert "the model's positions reach only 8 (max_length)" in error
    assert len(error.splitlines()) == 1


def test_a_reader_that_has_enough_ends_generate_quietly(trained):
    command = f"{sys.executable} -m lightning_xt generate runs/tiny --prompt ab --max_new_tokens 400 | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120)
    assert done.stdout == b"a"
    assert done.stderr == b""


class Gone(io.StringIO):
    """Standard output that cannot be written."""

    def __init__(self, reason):
        super().__init__()
        self.reason = reason

    def write(self, text):
        raise OSError(self.reason, os.strerror(self.reason))


def test_cases_r17_a_run_does_not_end_for_its_output(fresh, monkeypatch, capsys):
    bar = ["--trainer.enable_progress_bar=true"]
    for number, (reason, options) in enumerate(((errno.EPIPE, []), (errno.EPIPE, bar), (errno.ENOSPC, []))):
        monkeypatch.setattr(sys, "stdout", Gone(reason))
        assert main(["fit", "-c", "tiny.yaml", *options]) == 0
        assert list_names(f"runs/tiny/{number}/checkpoints") >= {"best.ckpt", "last.ckpt"}
        lost = "the output cannot be written (No space left on device); its rest is lost"
        assert (lost in capsys.readouterr().err) == (reason == errno.ENOSPC)
    assert main(["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path=best"]) == 0
    assert main(["info", "runs/tiny"]) == 2
    assert "error: a file or the output cannot be written (No space left on device)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", Gone(errno.EPIPE))
    for command in (["info", "runs/tiny"], ["generate", "runs/tiny", "--prompt", "a"], ["--help"]):
        assert main(command) == 0
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_to_another_process_is_not_the_end_of_the_output(fresh, monkeypatch):
    def break_pipe(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(LanguageModel, "training_step", break_pipe)
    with pytest.raises(RuntimeError, match="the connection to another process broke"):
        main(["fit", "-c", "tiny.yaml"])


def test_cases_r17_a_closed_output_is_quiet(tmp_path):
    command = f"{sys.executable} -m lightning_xt"
    for line in (f"{command} --help | head -0; exit ${{PIPESTATUS[0]}}", f"{command} --help >&-"):
        done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=120, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # A file that is opened later does not get the number of a closed stream, or texts would be written into it.
    script = (
        "from lightning_xt.system.output import open_closed_streams as run; run(); print(open('a', 'w').fileno() > 2)"
    )
    line = f'{sys.executable} -c "{script}" 2>&- <&-'
    assert subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path).stdout == b"True\n"


def test_cases_s18_a_deleted_folder_and_an_early_interrupt(tmp_path):
    (tmp_path / "gone").mkdir()
    line = f"cd gone; rmdir ../gone; {sys.executable} -m lightning_xt info x"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    said = "lightning-xt: error: the current folder has been deleted; change to another one\n"
    assert (done.returncode, done.stderr) == (2, said)
    # Before the command line has handlers.
    script = "import sys; sys.modules['lightning_xt.cli'] = None; import lightning_xt.__main__ as own; "
    script += "own._leave_current_folder = lambda: (_ for _ in ()).throw(KeyboardInterrupt); own.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "lightning-xt: interrupted\n")


def test_cases_s18_an_interrupted_info(trained, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_xt.commands.models.checkpoint_facts.facts", interrupt)
    assert main(["info", "runs/tiny"]) == 130
    assert capsys.readouterr().err == "lightning-xt: interrupted\n"


def test_cases_s18_a_folder_with_a_number_is_not_a_run(fresh, capsys):
    (fresh / "exp/7").mkdir(parents=True)
    (fresh / "exp/7/config.yaml").write_text(TINY)
    assert main(["fit", "-c", "exp/7/config.yaml", "--trainer.max_steps=3"]) == 0
    assert "run=runs/config/0\n" in capsys.readouterr().out
    assert list_names("exp/7") == {"config.yaml"}


def test_an_exit_with_a_text_is_reported(monkeypatch, capsys):
    def stop(args):
        raise SystemExit("no more")

    monkeypatch.setattr("lightning_xt.cli._dispatch", stop)
    assert main(["fit"]) == 1
    assert capsys.readouterr().err == "no more\n"


def test_deprecations_of_the_users_are_shown(monkeypatch, recwarn):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        import_lightning()
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("old", JsonargparseDeprecationWarning, stacklevel=1)
    assert [each.category for each in shown] == [DeprecationWarning]


def test_only_what_this_package_raises_is_the_users_mistake():
    with pytest.raises(ValueError, match="at least 1") as raised:
        check_option("data", "seq_len", 0, least=1)
    assert "data has seq_len 0, which must be at least 1" in explain_error(raised.value)
    with pytest.raises(ValueError, match="range") as fault:
        Bytes().decode([300])
    assert explain_error(fault.value) is None


def test_mistakes_of_a_run_that_exists(trained, capsys):
    resume = ["fit", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "8"]
    assert main([*resume, "--model.decoder.dim", "16"]) == 2
    assert "whose weights do not fit this command's LanguageModel" in capsys.readouterr().err
    assert main(["generate", "runs/tiny", "--prompt", "x", "--top_k", "0"]) == 2
    assert "filters: TopK (top_k) has k 0, which must be at least 1" in capsys.readouterr().err
    assert main(["generate", "runs/tiny"]) == 2
    assert "generate needs a prompt of at least one character" in capsys.readouterr().err
    predict = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"]
    assert main(predict) == 2
    assert "--output out.jsonl" in capsys.readouterr().err
    assert main([*predict, "--output", "out.jsonl"]) == 2
    assert "--data.predict_prompts FILE" in capsys.readouterr().err
    assert main([*predict, "--data.predict_prompts", "prompts.txt", "--output", "no/such/out.jsonl"]) == 2
    assert "there is no folder no/such" in capsys.readouterr().err
    shutil.rmtree("runs/tiny/0/checkpoints")
    assert main(resume) == 2
    assert "there is no runs/tiny/0/checkpoints/last.ckpt" in capsys.readouterr().err


def test_tracebacks_on_demand(fresh, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["fit", "-c", "tiny.yaml", "--data.path", "missing.txt"])


def test_options_from_the_environment(fresh, monkeypatch, capsys):
    monkeypatch.setenv("LXT_FIT__TRAINER__MAX_STEPS", "77")
    assert main(["fit", "--data", "TextFiles", "--data.path", "corpus.txt", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_steps"] == 77


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_is_short_and_quick(option):
    # Which modules it imports, rather than seconds: those of a busy machine say nothing.
    code = f"""
import sys
from lightning_xt import commands
from lightning_xt.cli import main
assert main(["{option}"]) == 0
assert not sys.modules.keys() & {{"torch", "lightning", "jsonargparse", "numpy", "yaml"}}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) < 32


def test_callbacks_of_all_commands_have_a_help(capsys, fresh):
    assert main(["fit", "-c", "tiny.yaml", "--help_all"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Count skipped optimizer steps, and stop a run that skips too many in a row. null = none." in said
    assert "Callback that sets a model up for inference: " in said


def test_a_command_is_a_module(monkeypatch, tmp_path, capsys):
    (tmp_path / "count.py").write_text(
        'SUMMARY = "count to a number"\ndef run(args):\n    print(*range(int(args[0])))\n    return 0'
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert main(["count", "3"]) == 0
    assert capsys.readouterr().out == "0 1 2\n"
    assert main(["--help"]) == 0
    assert "  count      count to a number\n" in capsys.readouterr().out
    assert main(["cuont"]) == 2
    assert "unknown command 'cuont'; did you mean count?" in capsys.readouterr().err
    for module in pkgutil.iter_modules(commands.__path__):
        if not module.ispkg and module.name != "count":
            command = importlib.import_module(f"lightning_xt.commands.{module.name}")
            assert callable(command.add_options) and callable(command.run) and command.SUMMARY


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ("fit --trainer.max_step 3", "unknown option '--trainer.max_step'; did you mean --trainer.max_steps"),
        ("fit --nam b", "unknown option '--nam'; did you mean --name?"),
        ("fit --conf tiny.yaml", "unknown option '--conf'; did you mean --config"),
        ("fit -ctiny.yaml", "unknown option '-ctiny.yaml'; give -c tiny.yaml"),
        ("validate --ckpt best", "unknown option '--ckpt'; did you mean --ckpt_path"),
        ("generate runs/tiny --max_new 3", "unknown option '--max_new'; did you mean --max_new_tokens"),
        ("generate runs/tiny -cx.yaml", "unknown option '-cx.yaml'; give -c x.yaml"),
        ("info runs/tiny --seq 3", "unrecognized arguments: --seq 3; did you mean --seq_len?"),
        ("average runs/tiny --las 3", "unrecognized arguments: --las 3; did you mean --last?"),
    ],
)
def test_abbreviations_are_refused(args, part, fresh, capsys):
    command, *options = args.split()
    first = ["-c", "tiny.yaml"] if command in ("fit", "validate") else []
    assert main([command, *first, *options]) == 2
    assert part in capsys.readouterr().err


def in_two_processes(*args):
    return warm.run([*args, "--trainer.devices", "2", "--trainer.strategy", "ddp"])


def test_more_processes_than_prompts_or_windows(trained, capsys):
    config = ["-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"]
    Path("one.txt").write_text("fox\n")
    # The difference is reported once.
    differs = ["--model.decoder.dropout", "0.5"]
    done = in_two_processes("predict", *config, *differs, "--data.predict_prompts", "one.txt", "--output", "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["prompt"] for line in Path("out.jsonl").read_text().splitlines()] == ["fox"]
    assert not list(Path().glob("out.jsonl.part*"))
    assert done.stdout.count("--model.decoder.dropout is 0.5 here") == 1
    # One window holds the whole validation split.
    done = in_two_processes("validate", *config, "--data.seq_len", "43")
    assert done.returncode == 0, done.stderr
    assert main(["validate", *config, "--data.seq_len", "43"]) == 0
    alone = capsys.readouterr().out.splitlines()[-1]
    assert alone.startswith("val/bits_per_byte=")
    assert float(done.stdout.splitlines()[-1].split("=")[1]) == pytest.approx(float(alone.split("=")[1]), rel=2e-6)


def test_two_processes_find_the_same_number(trained):
    command = ["validate", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"]
    numbers = []
    for devices in (1, 2):
        options = ["--trainer.devices", str(devices), "--trainer.strategy", "auto" if devices == 1 else "ddp"]
        done = warm.run([*command, *options])
        assert done.returncode == 0, done.stderr
        numbers.append(done.stdout.splitlines()[-3:])
    assert numbers[0][2].startswith("val/bits_per_byte=")
    for one, two in zip(*numbers, strict=True):
        assert one.split("=")[0] == two.split("=")[0]
        assert float(one.split("=")[1]) == pytest.approx(float(two.split("=")[1]), rel=2e-6)
