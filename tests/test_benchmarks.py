"""The benchmarks run at tiny sizes and print one JSON object as their last line."""

import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_xt.data.text.windows import TrainingWindows

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = [
    "--model.compile=false",
    "--model.decoder.dim=16",
    "--model.decoder.depth=2",
    "--model.decoder.attention.heads=1",
]


SMALL = ["--dim=16", "--depth=1", "--heads=2", "--seq_len=16", "--batch_size=2"]
# Runs a script as if x-transformers were not installed.
WITHOUT_X_TRANSFORMERS = """
import runpy, sys
sys.modules["x_transformers"] = None
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(tmp_path, script, *options, before=()):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIGHTNING_XT_DATA": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *before, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)


def parse_result(done):
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert set(said) == {"machine", "date", "versions", "rows"}
    assert datetime.date.fromisoformat(said["date"]) <= datetime.date.today()
    assert said["machine"].partition(",")[0]
    return said["rows"]


def run_rows(tmp_path, script, *options):
    return parse_result(run(tmp_path, script, *options))


def train(tmp_path, *names):
    slices = ["--eager", "--repeats=2", "--slices=2", "--steps=2"]
    return run_rows(tmp_path, "training.py", *SMALL, *slices, "--rows", *names)


@pytest.mark.slow
def test_mup_finds_the_best_rate_of_each_leg(tmp_path):
    tiny = ["--base_dim=16", "--dim=32", "--rates=2", "--steps=2", "--seeds=1", "--seq_len=16"]
    found = run_rows(tmp_path, "mup.py", *tiny, "--optimizers", "AdamW", "MuonAdamW")
    legs = ("16_wide", "32_wide_mup", "32_wide")
    assert list(found) == [f"{optimizer}_{leg}" for optimizer in ("AdamW", "MuonAdamW") for leg in legs]
    for row in found.values():
        losses = {float(rate): loss for rate, loss in row["losses"].items()}
        assert len(losses) == 2 and row["value"] == min(losses, key=losses.get)


def write_shakespeare(tmp_path):
    text = tmp_path / "tinyshakespeare" / "input.txt"
    text.parent.mkdir()
    text.write_bytes(b"to be or not to be, " * 200)


@pytest.mark.slow
def test_training_compares_the_trainer_with_the_bare_loop(tmp_path):
    names = ["trainer_vs_bare", "data_wait_share", "reference_gpt", "gemm_gflops", "share_of_gemm"]
    found = train(tmp_path, *names)
    assert set(found) == set(names)
    assert found["trainer_vs_bare"]["repeats"] == 2 and found["reference_gpt"]["repeats"] == 4
    assert all(row["value"] > 0 for row in found.values())
    # Tables for 256 bytes, a layer of 12 * 16 * 16 and three norms; the head is shared, positions are learned.
    parameters = found["share_of_gemm"]["parameters"]
    assert parameters["reference_gpt"] == 256 * 16 + 16 * 16 + 12 * 16 * 16 + 3 * 16
    assert parameters["ours"] == 2 * 256 * 16 + 12 * 16 * 16 + 3 * 16


@pytest.mark.slow
def test_training_measures_the_overhead_besides_that_of_lightning_itself(tmp_path):
    tiny = train(tmp_path, "trainer_overhead_ms")["trainer_overhead_ms"]["tiny_model"]
    assert tiny["unit"] == "ms" and tiny["slices"] == 20
    for kind in ("wall", "cpu"):
        names = {"bare_step", "trainer", "trainer_of_bare", "barebones", "barebones_of_bare"}
        assert set(tiny[kind]) == names and tiny[kind]["bare_step"] > 0


@pytest.mark.slow
def test_training_measures_x_transformers(tmp_path):
    pytest.importorskip("x_transformers")
    found = train(tmp_path, "vs_xt_shipped", "vs_xt_script", "vs_xt_flash_bf16", "vs_xt_compiled")
    for row in found.values():
        assert row["theirs"] > 0 and row["ours"] > 0 and row["repeats"] == 4
        assert row["unit"] == "times their tokens/s"


@pytest.mark.slow
def test_training_measures_how_time_grows_with_the_row(tmp_path):
    found = train(tmp_path, "window_scaling")["window_scaling"]
    keys = {"value", "spread", "repeats", "unit", "step_ms", "window", "size", "parameters"}
    assert set(found) == keys
    assert found["window"] == 16 and list(found["step_ms"]) == ["16", "32", "64", "128", "256", "512"]
    assert found["unit"] == "time of a step with rows of 512 over that with rows of 16"


@pytest.mark.slow
def test_training_measures_the_fraction_of_an_h100_only_on_one(tmp_path):
    done = run(tmp_path, "training.py", *SMALL, "--rows", "mfu_h100")
    assert parse_result(done) == {}
    assert done.stderr.splitlines()[0] == "mfu_h100 is skipped: this device is not an H100"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "options", "message"),
    [
        (
            ["-c", WITHOUT_X_TRANSFORMERS],
            ["--rows", "trainer_vs_bare", "vs_xt_shipped", "vs_xt_compiled"],
            "x-transformers is not installed, and vs_xt_shipped, vs_xt_compiled need it; run pip install -e "
            "'.[bench]', or name other rows with --rows",
        ),
        ([], ["--device=cuda"], "--device is cuda, and torch finds no GPU; give --device cpu"),
    ],
)
def test_training_says_at_once_what_is_missing(tmp_path, before, options, message):
    done = run(tmp_path, "training.py", *options, before=before)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (2, "", [message])


def test_no_test_imports_a_folder_by_a_benchmarks_name():
    """No test imports a folder named as a benchmark: `training` would then be the tests' everywhere."""
    tests = Path(__file__).parent
    sources = [path.read_text() for path in tests.rglob("*.py")]
    imported = {name for source in sources for name in re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE)}
    assert {"processes_run", "tiny_run"} <= imported
    folders = {path.name for path in tests.iterdir() if path.is_dir()}
    assert not imported & folders & {path.stem for path in BENCHMARKS.glob("*.py")}


@pytest.mark.slow
def test_a_repeat_is_the_mean_of_its_slices(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from training import Race

    race = Race({}, torch.device("cpu"), rounds=4, steps=1, seconds={"bare": [1.0, 4.0, 2.0, 2.0]})
    assert race.totals("bare", 2) == [2.5, 2.0]


@pytest.mark.slow
def test_quality_compares_ours_with_the_reference(tmp_path):
    write_shakespeare(tmp_path)
    legs = ["--legs", "ours", "ours_half", "reference_gpt"]
    found = run_rows(tmp_path, "quality.py", "--seeds=2", "--steps=4", "--evaluations=2", *legs, "--", *TINY)
    assert set(found) == {"val_loss", "half_val_loss", "reference_val_loss", "bytes_to_reference"}
    for name in ("val_loss", "reference_val_loss"):
        row = found[name]
        assert row["repeats"] == len(row["curves"]) == 2 and row["evaluations"] == 2 and row["steps"] == 4
        assert row["curves"][0][-1][1] == row["bytes_seen"] == 2 * row["curves"][0][0][1]
        assert row["value"] < 5.6
    # Windows of 64 bytes, 12 in a step.
    assert found["reference_val_loss"]["bytes_seen"] == 4 * 12 * 64


@pytest.mark.slow
def test_quality_trains_with_each_seed_in_turn_and_no_more_than_its_recipe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import quality

    def leg(contest, seed, steps, evaluate=True):
        trained.append((seed, steps, evaluate))
        return quality.Run([(1.0, 1, 1.0)], seconds=6.0, steps=steps, bytes_seen=1)

    trained = []
    monkeypatch.setattr(quality, "LEGS", {name: (row, leg) for name, (row, _) in quality.LEGS.items()})
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path))
    monkeypatch.setattr(quality, "CONFIGS", tmp_path)
    (tmp_path / "shakespeare_cpu.yaml").write_text("trainer:\n  max_steps: 2800\n")
    write_shakespeare(tmp_path)
    command = ["quality.py", "--legs", "ours", "reference_gpt", "--seeds=2", "--seconds=1000"]
    monkeypatch.setattr(sys, "argv", command)
    quality.main()
    trial = [(0, 63, False)] * 2
    # Sixty steps take six seconds, and 90 % of a thousand are filled; the recipe ends after 2,800 steps.
    assert trained == [*trial, (0, 2800, True), (0, 9003, True), (1, 2800, True), (1, 9003, True)]


@pytest.mark.slow
def test_quality_gathers_the_windows_of_our_own_training(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path))
    write_shakespeare(tmp_path)
    from quality import PRESETS, Contest

    contest = Contest(PRESETS["shakespeare_cpu"], tmp_path, 1, [])
    weight = torch.nn.Parameter(torch.zeros(()))
    seen = []

    def loss(batch):
        seen.append(batch)
        return weight * 1.0

    model = torch.nn.Module()
    model.weight = weight
    contest.train_in_loop(model, loss, loss, torch.optim.SGD([weight]), lambda _: 0.1, 1.0, 7, -4)
    windows = TrainingWindows(contest.corpus().splits.train, 64, seed=7)
    assert torch.equal(torch.cat(seen), windows.__getitems__(range(4 * 12)))


@pytest.mark.slow
def test_quality_takes_no_other_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import quality

    monkeypatch.setattr(quality, "CONFIGS", tmp_path)
    contest = quality.Contest(quality.PRESETS["shakespeare_cpu"], tmp_path, 1, [])
    with pytest.raises(SystemExit, match="the command line failed"):
        contest.ours(0, 1)
    assert str(tmp_path / "shakespeare_cpu.yaml") in capsys.readouterr().err


@pytest.mark.slow
def test_quality_without_x_transformers_leaves_its_leg_out(tmp_path):
    write_shakespeare(tmp_path)
    legs = ["--legs", "reference_gpt", "x_transformers", "--seeds=1", "--steps=4", "--evaluations=2"]
    done = run(tmp_path, "quality.py", *legs, before=["-c", WITHOUT_X_TRANSFORMERS])
    assert set(parse_result(done)) == {"reference_val_loss"}
    message = "x-transformers is not installed: its leg is skipped; run pip install -e '.[bench]' for it"
    assert done.stderr.splitlines()[0] == message


@pytest.mark.slow
def test_quality_without_its_corpus_says_so(tmp_path):
    assert run_rows(tmp_path, "quality.py", "--preset=shakespeare_cpu") == {}


@pytest.mark.slow
def test_quality_without_a_gpu_says_so(tmp_path):
    done = run(tmp_path, "quality.py", "--preset=stdlib_gpu")
    assert parse_result(done) == {}
    assert done.stderr.splitlines() == ["stdlib_gpu needs a GPU, and there is none: nothing was measured"]


SMALL_PAIRS = ["--model.encoder.dim=16", "--model.encoder.depth=1", "--model.decoder.dim=16", "--model.decoder.depth=1"]
SMALL_PAIRS += ["--trainer.max_steps=2", "--model.schedule.warmup_steps=1"]


@pytest.mark.slow
def test_translation_counts_in_both_ways(tmp_path):
    folder = tmp_path / "multi30k"
    folder.mkdir()
    for name in ("train", "val", "test_2016_flickr"):
        for language, line in (("en", "A dog, a cat.\n"), ("de", "Ein Hund, eine Katze.\n")):
            (folder / f"{name}.{language}").write_text(line * 12)
    config = BENCHMARKS.parent / "configs" / "translation" / "multi30k_debug.yaml"
    small = [*SMALL_PAIRS, "--data.tokenizer.vocab_size=280"]
    found = run_rows(tmp_path, "translation.py", f"--config={config}", "--", *small)
    assert set(found) == {"bleu_tokenized", "bleu", "chrf", "seconds"}
    assert "tok:none" in found["bleu_tokenized"]["signature"] and "tok:13a" in found["bleu"]["signature"]
    assert all(found[name]["sentences"] == 12 for name in ("bleu_tokenized", "bleu", "chrf"))


def test_translation_scores_what_is_right(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from translation import scores

    right = ["Ein Hund, eine Katze und ein Mann.", "Zwei Männer gehen nach Hause."]
    assert {name: row["value"] for name, row in scores(right, right).items()} == dict.fromkeys(
        ("bleu_tokenized", "bleu", "chrf"), 100.0
    )
    # The published figures ignore case.
    lower = scores([text.lower() for text in right], right)
    assert lower["bleu_tokenized"]["value"] == 100.0 and lower["bleu"]["value"] < 60


@pytest.mark.slow
def test_algorithms_count_what_is_exact(tmp_path):
    rest = ["--", *SMALL_PAIRS, "--data.test_size=16", "--data.validation_size=8"]
    found = run_rows(tmp_path, "algorithms.py", "--seeds=2", "--tasks=reverse", "--positions=alibi", *rest)
    assert set(found) == {"reverse", "length_alibi"}
    for row in found.values():
        assert row["repeats"] == len(row["seeds"]) == len(row["seconds"]) == 2
        assert row["value"] == 0.0, "nothing is learned in two steps"


@pytest.mark.slow
def test_copy_loop_is_learned_in_no_more_steps_than_by_x_transformers(tmp_path):
    pytest.importorskip("x_transformers")
    found = run_rows(tmp_path, "copy_loop.py", "--seeds=3")
    assert found["ours"]["value"] <= found["theirs"]["value"]
    assert max(found["ours"]["seeds"]) <= 500


@pytest.mark.slow
def test_finetuning_compares_equal_numbers_of_runs(tmp_path):
    sizes = ["--dim=16", "--depth=1", "--rank=1", "--seq_len=16", "--base_steps=2", "--steps=2"]
    data = ["--corpus=20000", "--task=5000", "--measured=2000"]
    found = run_rows(tmp_path, "finetuning.py", "--seeds=1", *sizes, *data)
    assert found.keys() == {"full", "lora", "base", "excess"}
    assert found["full"]["trained"] == 1 and 0 < found["lora"]["trained"] < 0.2
    assert len(found["full"]["by_lr"]) == len(found["lora"]["by_lr"]) == 3


def test_copy_loop_without_x_transformers_runs_ours_alone(tmp_path):
    done = run(
        tmp_path, "copy_loop.py", "--seeds=2", "--max_steps=10", "--dim=16", before=["-c", WITHOUT_X_TRANSFORMERS]
    )
    assert parse_result(done) == {"ours": {"value": None, "seeds": [None, None], "repeats": 2}}
    message = "x-transformers is not installed, so ours runs alone; pip install -e '.[bench]'"
    assert done.stderr.splitlines() == [message, "seed 0  ours: not learned", "seed 1  ours: not learned"]


def test_variants_measures_overlays_next_to_the_plain_decoder(tmp_path):
    small = ["--dim=16", "--depth=2", "--heads=4", "--seq_len=16", "--batch_size=2", "--repeats=2"]
    found = run_rows(tmp_path, "variants.py", "--only", "alibi", "multi_token_prediction", *small)
    assert set(found) == {"share_within_1.25x", "plain", "alibi", "multi_token_prediction"}
    share = found["share_within_1.25x"]
    assert share["of"] == 2 and share["value"] == share["within"] / 2
    assert found["plain"]["seq_len"] == 16 and found["plain"]["megabytes"] > 0
    assert found["alibi"]["value"] > 0 and found["alibi"]["repeats"] == 2
    # A bias has no parameters, and another prediction's layers have some.
    assert 0.9 < found["alibi"]["memory"] < found["multi_token_prediction"]["memory"]


def test_welchs_test_is_that_of_tables(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from architectures import compare

    from lightning_xt.commands.ablation.student_t import find_p_value

    # Critical values of Student's distribution, two-sided.
    for t, degrees, p in ((12.706, 1, 0.05), (2.776, 4, 0.05), (4.604, 4, 0.01), (2.228, 10, 0.05), (3.169, 10, 0.01)):
        assert find_p_value(t, degrees) == pytest.approx(p, rel=2e-3)
        assert find_p_value(-t, degrees) == find_p_value(t, degrees)
    assert find_p_value(0.0, 7.5) == pytest.approx(1)
    # Means 5.75 and 3.75.
    first, second = [5.0, 5.0, 6.0, 7.0], [2.0, 3.0, 3.5, 4.0, 6.25]
    found = compare(first, second)
    spread = statistics.variance(first) / 4 + statistics.variance(second) / 5
    assert found["difference"] == pytest.approx(2.0)
    assert found["t"] == pytest.approx(2 / spread**0.5, abs=0.006)
    assert found["value"] == pytest.approx(find_p_value(2 / spread**0.5, found["degrees"]), rel=0.01)


def test_a_learning_rate_at_the_end_of_the_grid_has_a_neighbour_tried(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from architectures import tune

    assert tune(lambda rate: abs(rate - 2), (1, 2, 4)) == {1: 1, 2: 0, 4: 2}
    assert tune(lambda rate: -rate, (1, 2, 4)) == {1: -1, 2: -2, 4: -4, 8: -8}
    assert tune(lambda rate: rate, (1, 2, 4)) == {0.5: 0.5, 1: 1, 2: 2, 4: 4}


@pytest.mark.slow
def test_architectures_compares_two_and_continues(tmp_path):
    small = ["--bytes=2048", "--tuning_bytes=1024", "--seeds=2", f"--folder={tmp_path / 'kept'}"]
    small += ["--", "--trainer.limit_val_batches=1"]
    started = run(tmp_path, "architectures.py", *small)
    found = parse_result(started)
    assert set(found) == {"gpt2", "modern_small", "welch"}
    for name in ("gpt2", "modern_small"):
        row = found[name]
        assert row["repeats"] == len(row["each"]) == 2 and row["bytes_seen"] == 2048
        assert 5 < row["value"] < 9 and len(row["tuning"]) in (3, 4)
        assert row["spread"] == [min(row["each"]), max(row["each"])]
    first, second = (found[name]["parameters"] for name in ("gpt2", "modern_small"))
    assert abs(first - second) < 0.01 * first
    again = run(tmp_path, "architectures.py", *small)
    assert parse_result(again) == found
    assert started.stderr.count("bits per byte") >= 10 and "bits per byte" not in again.stderr


@pytest.mark.slow
def test_lengths_measures_runs_at_each_length_once(tmp_path):
    small = ["--overlays", "rotary", "learned_positions", "--steps=2", "--seeds=1", "--windows", "256/128", "512"]
    small += [f"--folder={tmp_path / 'runs'}", "--", "--model.decoder.depth=1", "--trainer.limit_val_batches=1"]
    started = run(tmp_path, "lengths.py", *small)
    found = parse_result(started)
    assert list(found) == ["rotary", "learned_positions"]
    assert all(4 < value < 9 for row in found.values() for value in row["value"].values())
    assert all(row["value"]["256/128"] != row["value"]["512"] for row in found.values())
    # Without the runs nothing can be measured again, and a new run would have a folder.
    for name in found:
        shutil.rmtree(tmp_path / "runs" / name)
    assert parse_result(run(tmp_path, "lengths.py", *small)) == found
    assert not (tmp_path / "runs" / "rotary").exists()
    run(tmp_path, "lengths.py", *small, "--data.batch_size=2")
    assert (tmp_path / "runs" / "rotary").is_dir(), "results of other options are not taken"


@pytest.mark.slow
def test_tokenizing_is_as_fast_as_the_library_and_takes_little_memory(tmp_path):
    found = run_rows(tmp_path, "tokenizing.py", "--megabytes=4", "--repeats=1", "--vocab_size=600")["tokenizing"]
    assert found["megabytes"] == 4 and 500_000 < found["tokens"] < 4_000_000
    # Seconds of all cores: other programs disturb these less.
    assert found["cpu"] > 0.8 and found["memory_growth_mb"] < 300, found


@pytest.mark.slow
def test_subwords_compare_with_bytes_and_continue(tmp_path):
    small = ["--steps=6", "--seeds=1", "--timed=2", f"--folder={tmp_path / 'kept'}", "--subword_steps=4"]
    small += ["--", "--trainer.limit_val_batches=1"]
    started = run(tmp_path, "subwords.py", *small)
    found = parse_result(started)
    assert [found[name]["steps"] for name in ("bytes", "subwords")] == [6, 4]
    assert found["bytes"]["parameters"] < found["subwords"]["parameters"]
    assert all(2 < row["value"] < 9 and row["step_ms"] > 0 for row in found.values())
    again = run(tmp_path, "subwords.py", *small)
    assert parse_result(again)["subwords"]["each"] == found["subwords"]["each"]
    assert "bits per byte" in started.stderr and "bits per byte" not in again.stderr


@pytest.mark.slow
def test_memory_of_checkpointed_layers_and_of_windows(tmp_path):
    """A decoder of 12 layers, 512 wide, on 4,096 tokens needs at most half the memory, gradients included."""
    found = run_rows(tmp_path, "memory.py", "--rows", "checkpoint_layers")["checkpoint_layers"]
    assert found["value"] <= 0.5 and found["kept"] <= 0.5, found
    small = ["--dim=16", "--depth=2", "--heads=2", "--seq_len=256"]
    found = run_rows(tmp_path, "memory.py", "--rows", "checkpoint_half", "window_cache", *small)
    assert found["checkpoint_half"]["kept"] < 1
    # A window of an eighth of the row, and its slack; besides tokens a cache holds its lengths, some bytes.
    assert {name: round(each) for name, each in found["window_cache"]["tokens"].items()} == {
        "with": 32 + 64,
        "without": 256,
    }


@pytest.mark.slow
def test_generation_compares_steps_of_several_rows_with_their_products(tmp_path):
    tiny = ["--dim=16", "--depth=1", "--new=3", "--repeats=2", "--eager"]
    found = run_rows(tmp_path, "generation.py", *tiny, "--rows", "several_rows")["several_rows"]
    steps = {
        f"{weights} {rows}" for weights in ("float32", "bfloat16", "int8", "int4") for rows in (1, 2, 4, 8, 16, 32)
    }
    assert set(found["ms"]) == steps | {f"{step} products" for step in steps}
    assert all(0 < found["ms"][f"{step} products"] < found["ms"][step] for step in steps)
    assert found["value"] > 0 and set(found["gflops"]) == {"float32 peak", "bfloat16 peak"}


@pytest.mark.slow
def test_lookup_pays_on_text_that_repeats_itself(tmp_path):
    tiny = ["--dim=16", "--depth=1", "--new=96", "--repeats=2", "--eager"]
    texts = run_rows(tmp_path, "generation.py", *tiny, "--rows", "lookup")["lookup"]["texts"]
    weights, kinds = ("float32", "bfloat16", "int8"), ("repeating", "code", "random")
    assert set(texts) == {f"{each} {kind}" for each in weights for kind in kinds}
    for name, found in texts.items():
        assert found["accepted"] <= found["proposed"]
        assert found["value"] > 1.5 if "repeating" in name else found["value"] > 0
        assert "random" not in name or found["accepted"] == 0


TINY_SERVING = ["--dim=16", "--depth=1", "--tokens=6", "--prompt=4", "--repeats=2", "--eager"]


@pytest.mark.slow
def test_serving_measures_clients_in_turn(tmp_path):
    found = run_rows(tmp_path, "serving.py", *TINY_SERVING, "--clients", "1", "3", "--rows=2", "--references")
    loads = {"load_float32_1", "load_float32_3"}
    assert set(found) == {*loads, "speedup_float32_3", "first_token_overhead_float32", "same_text_float32"}
    for name in loads:
        row = found[name]
        assert row["value"] > 0 and row["repeats"] == 2 and row["unit"] == "tokens/s"
        for times in (row["first_token_ms"], row["between_tokens_ms"]):
            assert 0 <= times["p50"] <= times["p99"]
    assert found["speedup_float32_3"]["repeats"] == 2
    assert found["same_text_float32"]["of"] == 3 and found["same_text_float32"]["tokens"] == 6
    assert found["first_token_overhead_float32"]["prompt_tokens"] == 4


@pytest.mark.slow
def test_serving_measures_transformers(tmp_path):
    for name in ("transformers", "openai", "accelerate"):
        pytest.importorskip(name)
    found = run_rows(tmp_path, "serving.py", *TINY_SERVING, "--clients", "2", "--references", "transformers")
    assert found["load_transformers_2"]["value"] > 0 and found["vs_transformers_float32_2"]["repeats"] == 2


WITHOUT_ACCELERATE = WITHOUT_X_TRANSFORMERS.replace("x_transformers", "accelerate")


@pytest.mark.slow
def test_serving_without_transformers_skips_it(tmp_path):
    small = [*TINY_SERVING, "--clients", "1"]
    done = run(tmp_path, "serving.py", *small, before=["-c", WITHOUT_ACCELERATE])
    assert "load_float32_1" in parse_result(done) and "transformers_1" not in done.stdout
    message = "transformers serve is not installed, so it is skipped; run pip install -e '.[bench,serve]'"
    assert message in done.stderr.splitlines()


def test_serving_finds_where_texts_part(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from serving import find_gap
    from serving_clients import Load, Reply, percentile

    def chunk(when, token, *best):
        log_probs = {"tokens": [token], "top_logprobs": [dict(zip("xyz", best, strict=False))]}
        return when, json.dumps({"choices": [{"text": token, "logprobs": log_probs}]}).encode()

    reply = Reply(2.0, [chunk(3.0, "a", -1.5, -1.0), chunk(3.5, "b", -2.0, -1.75), (4.0, b"[DONE]")])
    assert reply.text == "ab" and find_gap(reply, "ac") == 0.25 and find_gap(reply, "bb") == 0.5
    load = Load()
    # Two tokens in the 1.5 seconds from the request to the last of them.
    assert load.add([reply]) == pytest.approx(2 / 1.5)
    assert load.report() == {
        "first_token_ms": {"p50": 1000.0, "p99": 1000.0},
        "between_tokens_ms": {"p50": 500.0, "p99": 500.0},
    }
    assert [percentile(range(1, 201), percent) for percent in (50, 99)] == [100, 198]


@pytest.mark.slow
def test_soak_of_a_server_counts_its_memory_and_its_jobs(tmp_path):
    found = run_rows(tmp_path, "soak_serving.py", "--seconds=10", "--clients=4", "--dim=16", "--depth=1")["soak"]
    assert found["jobs_left"] == {"running": 0, "waiting": 0}
    assert found["requests"] > 0 and found["after_warm_up_mb"] > 0 and found["end_mb"] > 0
    assert sum(found["all_requests"].values()) >= found["requests"]


def test_exchange_compares_translations_and_their_speed(tmp_path):
    rows = run_rows(tmp_path, "exchange.py", "--sentences=4", "--repeats=1")
    assert rows["same_float32"] == {"value": 4, "of": 4}
    legs = [f"{name}_{weights}" for name in ("ours", "ctranslate2", "ratio") for weights in ("float32", "int8")]
    assert all(rows[name]["value"] > 0 and rows[name]["repeats"] == 1 for name in legs)


def test_startup_measures_two_checkouts_in_turn(tmp_path):
    found = run_rows(tmp_path, "startup.py", "--rows", "version", "--repeats=2", f"--against={BENCHMARKS.parent}")
    row = found["version"]
    assert row["repeats"] == row["against"]["repeats"] == 2 and 0 < row["value"] < row["wall"] + 1
    assert row["spread"][0] <= row["value"] <= row["spread"][1]
    assert row["ratio_spread"][0] <= row["ratio"] <= row["ratio_spread"][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats=0"], "--repeats is 0; it must be at least 1"),
        (["--against=nowhere"], "--against nowhere has no lightning_xt; give the folder of a checkout"),
    ],
)
def test_startup_refuses_what_it_cannot_measure(monkeypatch, capsys, options, message):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import startup

    monkeypatch.setattr(sys, "argv", ["startup.py", *options])
    with pytest.raises(SystemExit):
        startup.main()
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


@pytest.mark.slow
def test_startup_ends_at_the_first_step_and_the_first_token(tmp_path):
    """Half of the CPU seconds of commit 619ebdc is 2 to 2.3 times torch's own import."""
    rows = ["import_torch", "fit_first_step", "generate_first_token"]
    found = run_rows(tmp_path, "startup.py", "--repeats=3", "--rows", *rows)
    torch_alone = found["import_torch"]["value"]
    assert torch_alone < found["generate_first_token"]["value"] < 2.5 * torch_alone
    assert torch_alone < found["fit_first_step"]["value"] < 3.2 * torch_alone


@pytest.mark.slow
def test_busy_compares_legs_with_and_without_another_process(tmp_path):
    small = ["--dim=16", "--eager", "--repeats=2", "--seconds=0.1"]
    done = run(tmp_path, "busy.py", *small, "--rows", "quickstart", "decoding")
    found = parse_result(done)
    assert "with one thread nothing waits" in done.stderr
    assert set(found) == {"quickstart", "decoding"}
    for row in found.values():
        assert row["repeats"] == 2 and row["threads"] == 1 and row["pinned"] is False and 0 <= row["dropped"] <= 2
        speeds = row["steps_per_second"]
        assert set(speeds) == {"adapted_quiet", "adapted_busy", "loaded_quiet", "loaded_busy"}
        assert min(speeds.values()) > 0
        for each in (row, row["as_loaded"], row["quiet_cost"]["speed_ratio"]):
            assert each["spread"][0] <= each["value"] <= each["spread"][1]


def test_busy_refuses_to_repeat_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import busy

    monkeypatch.setattr(sys, "argv", ["busy.py", "--repeats=0"])
    with pytest.raises(SystemExit):
        busy.main()
    assert capsys.readouterr().err.splitlines()[-1].endswith("--repeats is 0; it must be at least 1")
