"""compare: its table, its plot and its JSON, and its messages for what cannot be compared."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_xt.checkpoints.flat_config import flatten_config
from lightning_xt.checkpoints.parameter_count import count_parameters
from lightning_xt.cli import main
from lightning_xt.commands.comparison.comparison_plot import draw
from lightning_xt.commands.comparison.config_differences import find_differences, make_labels
from lightning_xt.commands.comparison.run_comparison import compare_runs
from lightning_xt.commands.comparison.run_records import read_runs

HEADER = "step,train/bytes,train/seconds,train/tokens,val/bits_per_byte\n"
ROWS = HEADER + "1,10,0.5,10,3.0\n2,20,1.0,20,2.0\n3,30,1.5,30,2.5\n"


def make_config(position="Rotary", **options):
    attention = {"class_path": "lightning_xt.Attention", "init_args": {"position": {"class_path": f"x.{position}"}}}
    model = {"class_path": "lightning_xt.LanguageModel", "init_args": {"decoder": {"attention": attention} | options}}
    return {"seed_everything": 0, "model": model, "data": {"seed": 0}, "name": "a", "validate_every": 5}


def write_run(name, metrics=ROWS, config=None):
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config or make_config()))
    if metrics is not None:
        (folder / "metrics.csv").write_text(metrics)
    return folder


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def compare(capsys, *options):
    capsys.readouterr()
    assert main(["compare", *options]) == 0
    return capsys.readouterr()


def fail(capsys, *options):
    capsys.readouterr()
    assert main(["compare", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err.removeprefix("lightning-xt: error: ").rstrip("\n")


def test_a_table_and_a_plot(capsys):
    write_run("a/0")
    write_run("b/0", ROWS.replace("2.0", "1.5"), make_config("ALiBi"))
    *lines, plot = compare(capsys, "runs/a", "runs/b/0").out.splitlines()
    assert plot == "plot=compare.png"
    assert Path("compare.png").read_bytes().startswith(b"\x89PNG")
    head, first, second = (" ".join(line.split()) for line in lines)
    assert head == "run parameters steps tokens bytes seconds best val/bits_per_byte last differs in"
    assert first == "runs/a/0 - 3 30 30 2 2.0000 at 2 2.5000 position Rotary"
    assert second == "runs/b/0 - 3 30 30 2 1.5000 at 2 2.5000 position ALiBi"


def test_everything_for_scripts(capsys):
    folder = write_run("a/0", f"{ROWS}4,,,,nan\n")
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": {"weight": torch.zeros(3, 4)}}, folder / "checkpoints/last.ckpt")
    found = json.loads(compare(capsys, "runs", "runs/a", "--json").out)
    assert found["metric"] == "val/bits_per_byte" and found["plot"] is None
    assert not Path("compare.png").exists()
    (entry,) = found["entries"]
    assert entry["label"] == "runs/a/0" and entry["differs"] == {}
    (run,) = entry["runs"]
    points = run.pop("points")
    assert points[1] == {"step": 2, "value": 2.0, "tokens": 20, "bytes": 20, "seconds": 1.0}
    assert points[3] == {"step": 4, "value": None}
    assert run == {
        "run": "runs/a/0",
        "parameters": 12,
        "steps": 4,
        "tokens": 30,
        "bytes": 30,
        "seconds": 1.5,
        "best": {"step": 2, "value": 2.0},
        "last": {"step": 4, "value": None},
        "notes": [],
    }


def test_a_name_is_its_newest_run_with_metrics(capsys):
    for number, metrics in enumerate((ROWS, ROWS, None)):
        write_run(f"a/{number}", metrics)
    write_run("b/10")
    write_run("b/9")
    Path("runs/a/1/checkpoints").mkdir()
    (Path("runs/a/1/config.yaml")).write_text("name: a\ninit_from: null\nkeep_checkpoints: 0\nstandard: {}\n")
    Path("runs/a/1/checkpoints/best.ckpt").touch()
    names = [run.name for run in read_runs(["runs", "runs/a/1/checkpoints/best.ckpt", "runs/a/0"])]
    assert names == ["runs/a/1", "runs/b/10", "runs/a/0"]
    assert read_runs(["runs/a/1"])[0].parameters is None


def test_runs_that_differ_in_their_seeds_only_are_grouped(capsys):
    for seed in range(3):
        config = make_config() | {"seed_everything": seed, "name": str(seed)}
        write_run(f"a/{seed}", ROWS.replace("2.0", f"2.{seed}"), config)
    write_run("b/0", config=make_config("ALiBi"))
    options = ["runs/a/0", "runs/a/1", "runs/a/2", "runs/b/0", "--group"]
    lines = compare(capsys, *options).out.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("runs/a/0 and 2 more ")
    assert " 2.1000 (2.0000 to 2.2000) " in lines[1] and lines[1].endswith("  position Rotary")
    entry = json.loads(compare(capsys, *options, "--json").out)["entries"][0]
    assert entry["best"] == {"mean": pytest.approx(2.1), "least": 2.0, "most": 2.2}
    assert entry["points"][1] == {
        **dict.fromkeys(("tokens", "bytes"), 20), "step": 2, "seconds": 1.0, "value": pytest.approx(2.1), "least": 2.0,
        "most": 2.2,
    }  # fmt: skip
    # Without it, seeds distinguish them.
    lines = compare(capsys, *options[:2]).out.splitlines()
    assert lines[1].endswith("  seed_everything 0")


def test_a_group_without_a_common_step_is_named(capsys):
    for seed, rows in enumerate(("500,3.0\n1000,2.0\n", "300,4.0\n")):
        write_run(f"a/{seed}", f"step,val/loss\n{rows}", make_config() | {"seed_everything": seed})
    captured = compare(capsys, "runs/a/0", "runs/a/1", "--group")
    assert " 3.0000 (2.0000 to 4.0000) " in captured.out and Path("compare.png").is_file()
    assert captured.err == (
        "lightning-xt: runs/a/0 and runs/a/1 share no step with val/loss: the plot has no curve of them\n"
    )
    (panel,) = draw(compare_runs(read_runs(["runs/a/0", "runs/a/1"]), group=True), "val/loss").axes
    assert panel.get_xlabel() == "optimizer steps"


def test_options_that_change_no_weight_are_omitted(capsys):
    fixed = {"seed": 0, "stride": None}
    figures = {"class_path": "lightning_xt.Figures", "init_args": {"every": 2}}
    trainer = {"enable_checkpointing": False, "logger": True, "log_every_n_steps": 1, "detect_anomaly": True}
    data = {"num_workers": 2, "resident": True, "predict_prompts": "p", "eval_batch_size": 9}
    bar = {"class_path": "lightning_xt.StepProgressBar", "init_args": {"refresh_rate": 1}}
    standard = {"progress_bar": bar, "exact_resume": None}
    plain = {
        "figures": None, "output": None, "standard": {"progress_bar": None, "exact_resume": None},
        "trainer": dict.fromkeys(trainer), "data": fixed | dict.fromkeys(data),
    }  # fmt: skip
    write_run("a/0", config=make_config() | plain)
    other = {"figures": figures, "output": "x", "standard": standard, "trainer": trainer, "data": fixed | data}
    write_run("b/0", config=make_config() | other)
    (entry,) = json.loads(compare(capsys, "runs/a", "runs/b", "--group", "--json").out)["entries"]
    assert len(entry["runs"]) == 2
    # Those that change weights, or the compared metric.
    different = {"standard": {"exact_resume": "x"}, "data": fixed | {"stride": 3}}
    write_run("c/0", config=make_config() | plain | different)
    found = json.loads(compare(capsys, "runs/a", "runs/c", "--group", "--json").out)["entries"]
    assert found[1]["differs"] == {"standard.exact_resume": "x", "data.stride": 3}
    custom = [{"data": "CustomData", "data.num_workers": number} for number in (0, 2)]
    assert find_differences(custom) == [{"data.num_workers": 0}, {"data.num_workers": 2}]


def test_the_metric(capsys):
    write_run("a/0", "step,optim/lr,train/loss,train/tokens,val/accuracy\n1,0.1,2.0,5,0.5\n2,0.1,1.0,10,0.25\n")
    write_run("b/0", "step,optim/lr,train/loss,train/tokens\n1,0.1,2.0,5\n")
    assert "best train/loss" in compare(capsys, "runs/a", "runs/b").out
    assert " 0.5000 at 1 " in compare(capsys, "runs/a").out
    sentence = fail(capsys, "runs/a", "runs/b", "--metric", "val/accuracy")
    assert sentence == "compare: runs/b/0 has no val/accuracy; it has optim/lr, train/loss"
    assert fail(capsys, "runs/a", "--metric", "train/los").startswith(
        "compare: unknown metric 'train/los'; did you mean train/loss"
    )
    # Totals are what others are plotted against.
    assert fail(capsys, "runs/a", "--metric", "train/tokens").startswith("compare: unknown metric 'train/tokens'")


def test_runs_that_share_no_metric(capsys):
    write_run("a/0", "step,val/loss\n1,2.0\n")
    write_run("b/0", "step,train/tokens,val/bleu\n1,5,2.0\n")
    sentence = fail(capsys, "runs/a", "runs/b")
    assert sentence == "compare: the runs share no metric: runs/a/0 has val/loss; runs/b/0 has val/bleu"


def test_names_that_are_not_runs(capsys):
    write_run("a/0", None)
    write_run("b/0", "step,val/loss\n")
    Path("other").mkdir()
    Path("some.txt").touch()
    for name, reason in {
        "absent": "absent is not a run: there is no such folder or file",
        "some.txt": "some.txt is not a run: it is a file outside of one",
        "other": "other is not a run: it has no config.yaml, and no folder in it is a run",
        "x" * 300: "is not a run: there is no such folder or file",
    }.items():
        sentence = fail(capsys, name)
        assert reason in sentence
        assert sentence.endswith("; give runs/NAME, runs/NAME/0, a folder of runs or a .ckpt file in a run")
    assert fail(capsys, "runs/a/0") == "compare: runs/a/0 has no metrics.csv; train it, or omit it"
    assert fail(capsys, "runs/b") == "compare: runs/b/0 has no metrics yet; train it, or omit it"
    assert fail(capsys).startswith("compare needs runs: lightning-xt compare runs/ONE runs/OTHER")


def test_damaged_files(capsys):
    run = write_run("a/0", f"{ROWS}4,,,,lost\n5,50,2.0,50,1.0\n6,60,2.5,6")
    captured = compare(capsys, "runs/a")
    assert captured.err == "lightning-xt: runs/a/0/metrics.csv is damaged: 1 of its rows cannot be read\n"
    assert " 1.0000 at 5 " in captured.out
    before = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(b"\x00\x01\n" + before)
    assert "metrics.csv is damaged: its first line does not name columns; omit" in fail(capsys, "runs/a")
    (run / "metrics.csv").write_bytes(before)
    (run / "config.yaml").write_text("model: [")
    assert fail(capsys, "runs/a").startswith("compare: runs/a/0/config.yaml cannot be read as a config; omit")
    (run / "config.yaml").write_text("words")
    assert compare(capsys, "runs/a").out
    assert {path.name for path in run.iterdir()} == {"config.yaml", "metrics.csv"}


def test_metrics_that_cannot_be_opened(capsys, monkeypatch):
    write_run("a/0")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "metrics.csv cannot be read (Permission denied); make it readable" in fail(capsys, "runs/a")


def test_the_output(capsys):
    write_run("a/0")
    for name in ("plot.svg", "plot.PDF"):
        assert f"plot={name}" in compare(capsys, "runs/a", "--output", name).out
        assert Path(name).stat().st_size > 1000
    assert json.loads(compare(capsys, "runs/a", "--json", "--output", "j.png").out)["plot"] == "j.png"
    assert fail(capsys, "runs/a", "--output", "a.gif").startswith(
        "compare: --output a.gif is not a plot's name; end it"
    )
    sentence = fail(capsys, "runs/a", "--output", "no/a.png")
    assert sentence == "compare: --output no/a.png cannot be written (No such file or directory); name another file"


def test_the_options_of_the_last_fit(capsys):
    run = write_run("a/0", config=make_config(depth=1))
    for number in (0, 2, 10):
        (run / f"config.fit.{number}.yaml").write_text(yaml.safe_dump(make_config(depth=number)))
    (run / "config.validate.0.yaml").write_text("model: null\n")
    assert read_runs(["runs/a"])[0].config["model.decoder.depth"] == 10


def test_options_of_a_class_are_compared_between_those_that_have_it():
    configs = [
        flatten_config(each)
        for each in (
            {"a": {"class_path": "x.One", "init_args": {"size": 1}}, "eps": 1e-6, "mods": [{"class_path": "x.M"}]},
            {"a": {"class_path": "x.One", "init_args": {"size": 2}}, "eps": 1e-6, "mods": []},
            {"a": {"class_path": "x.Two", "init_args": {"width": 3}}, "eps": 1e-6, "mods": []},
        )
    ]
    assert configs[0] == {"a": "One", "a.size": 1, "eps": 1e-6, "mods": "[M]"}
    assert find_differences(configs) == [
        {"a": "One", "a.size": 1, "mods": "[M]"},
        {"a": "One", "a.size": 2, "mods": []},
        {"a": "Two", "mods": []},
    ]


def test_labels_are_short_and_distinct():
    names = ["r/0", "r/1", "r/2"]
    differences = [{"x.lr": 0.001, "y.size": 1, "z.size": None}, {"x.lr": 0.01, "y.size": 1, "z.size": "w" * 99}]
    assert make_labels(differences, names[:2]) == [
        "lr 0.001, y.size 1, z.size null",
        f"lr 0.01, y.size 1, z.size {'w' * 37}...",
    ]
    same = [{"x.lr": 0.001}, {"x.lr": 0.001}, {}]
    assert make_labels(same, names) == ["r/0: lr 0.001", "r/1: lr 0.001", "r/2"]


def test_a_plot_has_an_axis_for_each_total(capsys):
    write_run("a/0")
    write_run("b/0", "step,val/bits_per_byte\n1,2.0\n2,nan\n")
    write_run("_c/0", ROWS)
    entries = compare_runs(read_runs(["runs/a", "runs/b", "runs/_c"]), group=False)
    figure = draw(entries, "val/bits_per_byte")
    assert [panel.get_xlabel() for panel in figure.axes] == [
        "optimizer steps", "bytes trained on", "seconds of training",
    ]  # fmt: skip
    steps, trained, seconds = figure.axes
    assert [line.get_xdata().tolist() for line in steps.get_lines()] == [[1, 2, 3], [1, 2], [1, 2, 3]]
    assert trained.get_lines()[0].get_xdata().tolist() == [10, 20, 30]
    assert seconds.get_lines()[0].get_ydata().tolist() == [3.0, 2.0, 2.5]
    assert steps.get_lines()[1].get_marker() == "o"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["runs/a/0", "runs/b/0", "runs/_c/0"]
    figure = draw(entries[1:2], "val/bits_per_byte")
    assert len(figure.axes) == 1


@pytest.mark.parametrize("name", ["a", "a" * 99])
def test_the_legend_names_runs_and_their_differences(name, capsys):
    for run, letter in ((name, "x"), ("b", "y")):
        write_run(f"{run}/0", config=make_config() | dict.fromkeys(("u", "v", "w"), letter * 30))
    entries = compare_runs(read_runs([f"runs/{name}", "runs/b"]), group=False)
    first, second = (text.get_text() for text in draw(entries, "val/bits_per_byte").legends[0].get_texts())
    assert second == f"runs/b/0: u {'y' * 30}, v {'y' * 30}, w {'y' * 7}..."
    assert first == (f"runs/{name}/0..." if len(name) > 1 else second.replace("b", "a").replace("y", "x"))


def test_a_plot_of_many_points_has_means_of_neighbours():
    rows = "".join(f"{step},{step % 2}\n" for step in range(1, 2001))
    write_run("a/0", f"step,train/loss\n{rows}")
    (panel,) = draw(compare_runs(read_runs(["runs/a"]), group=False), "train/loss").axes
    (line,) = panel.get_lines()
    assert line.get_xdata()[:2].tolist() == [1.5, 3.5] and set(line.get_ydata()) == {0.5}


def test_parameters_are_counted_without_the_tensors(tmp_path):
    weight, file = torch.zeros(3, 4), tmp_path / "any.ckpt"
    state = {"a": weight, "shared": weight, "b": torch.nn.Parameter(torch.ones(5)), "c": torch.zeros(())}
    torch.save({"state_dict": state, "dtype": torch.float32, "names": {1, 2}}, file)
    assert count_parameters(file) == 12 + 5 + 1
    torch.save([weight], file)
    assert count_parameters(file) is None
    file.write_bytes(b"PK")
    assert count_parameters(file) is None


def test_a_real_run(trained, capsys):
    found = json.loads(compare(capsys, "runs/tiny", "--json").out)["entries"][0]["runs"][0]
    assert (found["parameters"], found["steps"], found["tokens"], found["bytes"]) == (4888, 6, 96, 96)
    assert math.isfinite(found["best"]["value"]) and found["seconds"] > 0


def test_nothing_slow_is_imported(capsys):
    write_run("a/0")
    script = (
        "import sys; from lightning_xt.cli import main; main(['compare', 'runs/a', '--json'])\n"
        "print({'torch', 'lightning', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
