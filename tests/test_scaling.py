"""Scaling: fitted laws, the grid of trainings, cost by length, and bytes counted on paper against those of a run."""

import json
import math
import random
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from processes_run import run_in_processes
from tiny_run import write_inputs

from lightning_xt.training.language_model import LanguageModel

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIZES, BUDGETS = (2e4, 1e5, 4e5, 8e5, 2.7e6), (5e5, 1e6, 2e6)
SMALL_GRID = ["--sizes", "32", "64", "96", "--budgets", "1024", "2048", "4096", "--held_out", "96", "8192"]


@pytest.fixture(autouse=True)
def inputs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)


def run_main(monkeypatch, capsys, *options):
    import scaling

    monkeypatch.setattr(sys, "argv", ["scaling.py", *options])
    scaling.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]


def make_points(predict):
    from scaling_laws import Point

    return [Point(size, budget, predict(size, budget)) for size in SIZES for budget in BUDGETS]


@pytest.mark.parametrize(
    "values",
    [(0.9, 30.0, 0.34, 60.0, 0.28), (1.2, 5.0, 0.2, 5.0, 0.15), (0.05, 10.0, 0.6, 100.0, 0.3)],
)
def test_a_fit_recovers_the_law_of_its_points(values):
    from scaling_laws import Law, fit_law

    law = Law(*values)
    found = fit_law(make_points(law.predict))
    for name in ("E", "A", "alpha", "B", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=0.01), name
    # 0.9 + 30 / 10^1.5 + 60 / 10^1.6 with alpha 0.25 and beta 0.2.
    assert Law(0.9, 30.0, 0.25, 60.0, 0.2).predict(1e6, 1e8) == pytest.approx(0.9 + 0.948683 + 1.507132, abs=1e-6)


def test_a_fit_ignores_an_outlier(monkeypatch):
    import scaling_laws
    from scaling_laws import Law, Point, fit_law

    law = Law(0.9, 30.0, 0.34, 60.0, 0.28)
    points = make_points(law.predict)
    points[7] = Point(points[7].parameters, points[7].budget, 1.2 * points[7].loss)
    found = fit_law(points)
    assert (found.alpha, found.beta) == pytest.approx((0.34, 0.28), rel=0.05)
    # Squares do not.
    monkeypatch.setattr(scaling_laws, "DELTA", 10.0)
    assert fit_law(points).beta != pytest.approx(0.28, rel=0.2)


def test_a_fit_finds_the_least_huber_loss():
    from scaling_laws import DELTA, Law, fit_law

    law, noise = Law(0.9, 30.0, 0.34, 60.0, 0.28), random.Random(0)
    points = make_points(lambda *at: law.predict(*at) * math.exp(noise.gauss(0, 0.005)))

    def loss(law):
        errors = [abs(math.log(each.loss / law.predict(each.parameters, each.budget))) for each in points]
        return sum(e * e / 2 if e < DELTA else DELTA * (e - DELTA / 2) for e in errors)

    best = fit_law(points)
    assert loss(best) < loss(law)
    for name in ("E", "A", "alpha", "B", "beta"):
        for factor in (0.999, 1.001):
            moved = Law(**{**vars(best), name: factor * getattr(best, name)})
            assert loss(moved) > loss(best), name


def test_intervals_follow_the_seed_and_hold_the_law():
    from scaling_laws import Law, bootstrap_laws, draw_resamples, summarize

    law, noise = Law(0.9, 30.0, 0.34, 60.0, 0.28), random.Random(1)
    points = make_points(lambda *at: law.predict(*at) * math.exp(noise.gauss(0, 0.002)))
    _, laws, rows = summarize(points, 40, seed=3)
    assert len(laws) == 40 and rows["law"]["resamples"] == 40 and rows["law"]["points"] == 15
    for name, (least, most) in rows["law"]["intervals"].items():
        assert least < getattr(law, name) < most and least < rows["law"][name] < most, name
    assert bootstrap_laws(points, 40, seed=3) == laws
    assert not torch.equal(draw_resamples(points, 40, seed=3), draw_resamples(points, 40, seed=4))


def test_plain_power_laws_have_one_exponent_for_all_values_of_the_other():
    from scaling_laws import draw_resamples, fit_exponents

    points = make_points(lambda size, budget: 40 * size**-0.07 * budget**-0.12)
    weights = draw_resamples(points, 20, seed=0)
    assert weights.sum(dim=1).tolist() == [15] * 20
    for axis, exponent in enumerate((0.07, 0.12)):
        assert fit_exponents(points, axis, weights).tolist() == pytest.approx([exponent] * 20)


def test_a_law_needs_three_sizes_and_three_budgets():
    from scaling_laws import fit_law

    points = make_points(lambda size, budget: 2.0 + 1 / size + 1 / budget)
    message = "the grid has 2 different budgets, but an exponent and a limit need at least 3; add budgets"
    with pytest.raises(ValueError, match=message):
        fit_law([each for each in points if each.budget != 5e5])


GRID = ["--rows", "fit", "--text", "corpus.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*GRID, "--sizes", "32", "64", "64"], "--sizes has 2 different widths (32 64), but a law needs at least 3; "
         "add some"),
        ([*GRID, "--budgets", "5000", "9000"], "--budgets has 2 different multiples of the 1024 bytes of a step (4096 "
         "8192), but a law needs at least 3; add some"),
        ([*GRID, *SMALL_GRID, "--sizes", "32", "64", "80"],
         "the width 80 of --sizes or --held_out must be a multiple of 32, the width of a head"),
        ([*GRID, *SMALL_GRID, "--budgets", "1000", "1024", "2048", "4096"],
         "the budget 1000 of --budgets or --held_out is less than the 1024 bytes of one step; give more bytes"),
        ([*GRID, *SMALL_GRID, "--held_out", "96", "4096"],
         "--held_out is 96 4096, but must be larger than the grid, which ends at 96 4096; raise one or both"),
        ([*GRID, *SMALL_GRID], "the budget 8192 of --budgets or --held_out is more than the 512 bytes of an epoch, and "
         "the law is about text that is seen once; give fewer bytes, or more text with --text"),
        ([*GRID, *SMALL_GRID, "--text", "none.txt"], "--text none.txt"),
        ([*GRID, *SMALL_GRID, "--results", "corpus.txt"],
         "--results corpus.txt is not a file of finished cells; name another, or remove it"),
        ([*GRID, "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        ([*GRID, "--resamples", "0"], "--resamples is 0; it must be at least 1"),
        ([*GRID, "--rate", "nan"], "--rate is nan; it must be a number above 0"),
        (["--repeats", "0"], "--repeats is 0; it must be at least 1"),
        (["--rows", "length", "--lengths", "8", "8"], "--lengths has only 8, but a slope needs at least two; add a "
         "length"),
        (["--rows", "length", "--lengths", "8", "0"], "--lengths has 0; a row has at least 1 token"),
        (["--rows", "length", "--window", "0"], "--window is 0; it must be at least 1"),
        (["--rows", "processes", "--processes", "1", "2"], "--processes has 1, but must be at least 2; one process "
         "alone is measured anyway"),
        (["--rows", "processes", "--steps", "0"], "--steps is 0; it must be at least 1"),
        (["--rows", "communication", "--gpus", "1"], "--gpus is 1; it must be at least 2, because one sends nothing"),
        (["--rows", "communication", "--config", "none.yaml"], "--config none.yaml is not a file; give the config of a "
         "language model"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_one_sentence(monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        run_main(monkeypatch, capsys, *options)
    out, error = capsys.readouterr()
    assert (ended.value.code, out) == (2, "") and error.startswith(message)
    assert len(error.splitlines()) == 1


def test_a_grid_continues_after_its_last_finished_cell(monkeypatch, capsys, tmp_path):
    import scaling
    from scaling_laws import Law

    law, trained = Law(0.9, 30.0, 0.34, 60.0, 0.28), []

    def train(architecture, arguments, seed, length, folder):
        """Return the loss of a law, and stop at the fifth run of the first command."""
        options = dict(each.removeprefix("--").split("=", 1) for each in arguments)
        size = int(options["model.decoder.dim"])
        if len(trained) == 4 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        trained.append((size, length, options))
        assert (architecture, seed, options["data.order"]) == ("modern_small", 0, "shuffled")
        parameters = 12 * size**2
        found = law.predict(parameters, length) / math.log(2)
        return {"bits_per_byte": found, "parameters": parameters + 256 * size, "bytes_seen": length}

    stopped = []
    monkeypatch.setattr(scaling, "train", train)
    (tmp_path / "text.txt").write_bytes(b"to be or not to be, " * 1000)
    command = ["--rows", "fit", "--text", "text.txt", "--results", "kept/cells.json", "--resamples", "5", *SMALL_GRID]
    with pytest.raises(KeyboardInterrupt):
        run_main(monkeypatch, capsys, *command)
    rows = run_main(monkeypatch, capsys, *command)
    sizes, budgets = (32, 64, 96), (1024, 2048, 4096)
    expected = [(size, budget) for budget in budgets for size in sizes] + [(96, 8192)]
    assert [run[:2] for run in trained] == expected
    for size, _, options in trained:
        assert options["model.decoder.attention.heads"] == str(size // 32)
        assert options["model.decoder.depth"] == str(max(2, size // 32))
        rates = [float(options[f"model.optimizer.{name}"]) for name in ("lr", "adamw_lr", "head_lr")]
        assert rates == pytest.approx([0.04, 0.006, 0.006 * 64 / size])
    assert set(rows) == {"law", "power_law_parameters", "power_law_bytes", "held_out", "grid"}
    # Losses are kept with five digits.
    assert (rows["law"]["alpha"], rows["law"]["beta"]) == pytest.approx((0.34, 0.28), rel=0.02)
    held_out = rows["held_out"]
    assert held_out["measured"] == pytest.approx(law.predict(12 * 96**2, 8192), abs=1e-5)
    assert abs(held_out["value"]) < 1e-3 and held_out["bytes"] == 8192
    assert run_main(monkeypatch, capsys, *command) == rows and len(trained) == 10
    # Another rate is another cell.
    run_main(monkeypatch, capsys, *command, "--rate", "0.02")
    assert len(trained) == 20


@pytest.mark.slow
def test_a_grid_trains_by_the_command_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"to be or not to be, " * 1000)
    command = ["--rows", "fit", "--text", "text.txt", "--resamples", "5", *SMALL_GRID]
    rows = run_main(monkeypatch, capsys, *command)
    cells = rows["grid"]["cells"]
    assert len(cells) == 10 and cells[0]["loss"] > cells[-1]["loss"] > 0
    # Two layers of 12 * 32 * 32, fractions of values, and gains; a head of 256 * 32.
    assert 24 * 32**2 + 256 * 32 < cells[0]["parameters"] < 25 * 32**2 + 256 * 32


def test_lengths_have_slopes(monkeypatch, capsys):
    from scaling_lengths import find_slope

    assert find_slope([8, 16, 64], [3 * 8**0.7, 3 * 16**0.7, 3 * 64**0.7]) == pytest.approx(0.7)
    small = ["--lengths", "8", "16", "32", "--tokens", "32", "--dim", "16", "--depth", "1", "--heads", "2"]
    threads = torch.get_num_threads()
    rows = run_main(
        monkeypatch, capsys, "--rows", "length", *small, "--window", "4", "--decode_steps", "2", "--repeats", "1"
    )
    assert set(rows) == {"length_full", "length_window", "length_gated_delta_net"}
    for row in rows.values():
        for unit in ("us", "decode_us"):
            assert list(row[unit]) == ["8", "16", "32"] and all(time > 0 for time in row[unit].values())
        found = find_slope([8, 16, 32], list(row["us"].values()))
        assert row["value"] == pytest.approx(found, abs=0.01)
    assert rows["length_window"]["window"] == 4 and torch.get_num_threads() == threads


OPTIMIZERS = {
    "adamw": {"class_path": "AdamW", "init_args": {"lr": 0.01}},
    "muon": {"class_path": "MuonAdamW", "init_args": {}},
    "normuon": {"class_path": "MuonAdamW", "init_args": {"neuron_beta": 0.9}},
    "soap": {"class_path": "SOAPAdamW", "init_args": {"precondition_every": 1}},
}


class CountsThirdStep(Callback):
    """Callback that counts the collectives of the third step, after those of preparation."""

    def __init__(self, counter):
        self.counter = counter

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 2:
            self.counter.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.counter.__exit__(None, None, None)


@pytest.mark.filterwarnings("ignore:.*FSDP2-wrapped module .* returned a view tensor:UserWarning")
@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [
        ("ddp", "muon"),
        ("fsdp2", "soap"),
        *(pytest.param("fsdp2", name, marks=pytest.mark.slow) for name in ("adamw", "muon", "normuon")),
    ],
)
def test_bytes_on_paper_are_those_of_two_processes(tmp_path, strategy, optimizer):
    from scaling_communication import OPTIMIZERS as GATHERS
    from scaling_communication import CollectiveCounter, count_ddp, count_fsdp2
    from scaling_processes import train

    # Widths of 15 and 12, so that some rows are padded and others not.
    attention = {"heads": 3, "dim_head": 4, "qk_norm": "RMSNorm", "value_mods": ["ValueResidual"]}
    decoder = {"dim": 15, "depth": 2, "attention": attention, "shift": "TokenShift"}
    config = {"decoder": decoder, "optimizer": OPTIMIZERS[optimizer]}
    model = LanguageModel.from_config(config)

    def count():
        counter = CollectiveCounter()
        train(strategy, 2, 4, "corpus.txt", config, [CountsThirdStep(counter)], batch_size=2, seq_len=8)
        return counter.traffic

    expected = count_ddp(model) if strategy == "ddp" else count_fsdp2(model, 2)
    if strategy == "fsdp2":
        for kind, size in GATHERS[optimizer](model, 2).items():
            expected[kind] += size
    assert run_in_processes(count, 2, tmp_path) == [expected, expected]


def test_what_64_gpus_send_follows_from_the_sizes(tmp_path):
    from scaling_communication import count, list_units

    config = tmp_path / "model.yaml"
    # One layer without biases: 4 * 128 * 128 in attention, 2 * 128 * 512 in the feedforward, a gain of 128 in each.
    config.write_text("decoder: {dim: 128, depth: 1, attention: {heads: 2}}")
    rows = count(Namespace(config=config, gpus=64))
    layer, table, gain = 12 * 128 * 128 + 2 * 128, 256 * 128, 128
    numbers = layer + 2 * table + gain
    assert rows["communication_ddp"]["parameters"] == numbers
    # Each number has four bytes and all rows are multiples of 64. DDP sends the 32 frequencies of rotations too.
    # Two sums of the step are added up.
    assert rows["communication_ddp"]["all_reduce"] == 4 * numbers + 8
    assert rows["communication_ddp"]["value"] == math.ceil((2 * (4 * numbers + 8) + 4 * 32) * 63 / 64)
    gathered = 4 * (2 * layer + 2 * table + gain)
    assert rows["communication_fsdp2_adamw"]["all_gather"] == gathered
    assert rows["communication_fsdp2_adamw"]["reduce_scatter"] == 4 * numbers
    for name in ("muon", "soap"):
        assert rows[f"communication_fsdp2_{name}"]["all_gather"] == gathered + 4 * 12 * 128 * 128
    # One number more for each row: of queries, keys, values, outputs and both maps of the feedforward.
    assert rows["communication_fsdp2_normuon"]["all_gather"] == gathered + 4 * (12 * 128 + 9) * 128
    ratio = rows["communication_fsdp2_adamw"]["value"] / rows["communication_ddp"]["value"]
    assert rows["communication_fsdp2_adamw"]["of_ddp"] == round(ratio, 3)
    network = LanguageModel.from_config(config).network
    assert [(len(unit), gathers) for unit, gathers in list_units(network)] == [(3, 2), (3, 2), (3, 1)]


@pytest.mark.slow
def test_processes_train_together_and_are_compared_with_one(monkeypatch, capsys):
    small = ["--dim", "16", "--depth", "1", "--heads", "2", "--steps", "2", "--repeats", "1", "--processes", "2"]
    rows = run_main(monkeypatch, capsys, "--rows", "processes", *small)
    assert set(rows) == {"processes_ddp_2", "processes_fsdp2_2"}
    for row in rows.values():
        assert row["value"] == pytest.approx(row["one_ms"] / row["step_ms"], rel=0.02)
        assert row["limit"] == min(1, row["cores"] / 2)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(monkeypatch, tmp_path):
    from scaling_processes import launch

    options = Namespace(dim=16, depth=1, heads=2, steps=1)
    with pytest.raises(SystemExit, match=r"a process of ddp with 2 ended with 1: (?s:.*)corpus_that_is_missing"):
        launch("ddp", 2, tmp_path / "corpus_that_is_missing.txt", options)


def test_efficiency_is_compared_with_the_cores():
    from scaling_processes import describe

    options = Namespace(dim=16, depth=1, heads=2, steps=2)
    row = describe([0.3, 0.25, 0.4], [0.1, 0.1, 0.1], 4, 2, options)
    assert (row["value"], row["limit"], row["of_limit"]) == (0.333, 0.5, 0.667)
    assert row["spread"] == [0.25, 0.4] and row["step_ms"] == 300
