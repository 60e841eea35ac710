import gc
import random
import time
import warnings
from contextlib import nullcontext
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginEventAccumulator
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter
from tensorboard.data.server_ingester import NoDataServerError, SubprocessServerDataIngester, get_server_binary
from tensorboard.util import grpc_util

from lightning_xt.checkpoints.runs import MARKS, create_run, find_checkpoint, find_run
from lightning_xt.cli import main
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.generation.filters.min_p import MinP
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.training.callbacks import throughput
from lightning_xt.training.callbacks.exact_resume import ExactResume
from lightning_xt.training.callbacks.sample_text import SampleText
from lightning_xt.training.callbacks.step_progress_bar import StepProgressBar
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.loggers.metrics_file import MetricsFile
from lightning_xt.training.loggers.tensor_board import TensorBoard

# Lightning calls functions that version 5 of jsonargparse removes; we require an earlier one.


def test_tensorboard_shows_metrics_and_samples(folder):
    options = ["--model.decoder.dim=8", "--model.decoder.depth=1", "--model.decoder.attention.heads=1"]
    options += ["--trainer.max_steps=3", "--model.schedule.warmup_steps=1", "--trainer.log_every_n_steps=1"]
    options += ["--data.seq_len=8", "--sample_text.generation.max_new_tokens=2", "--trainer.enable_progress_bar=false"]
    assert main(["fit", "--data", "TextFiles", "--data.path", "corpus.txt", "--trainer.accelerator=cpu", *options]) == 0
    events = EventAccumulator(str(folder / "runs" / "default" / "0")).Reload()
    tags = events.Tags()
    wanted = {"train/loss", "val/loss", "val/bits_per_byte", "val/perplexity", "optim/lr", "optim/grad_norm"}
    assert wanted | {"speed/tokens_per_second", "speed/data_wait"} <= set(tags["scalars"])
    assert {f"samples/{number}/text_summary" for number in range(3)} <= set(tags["tensors"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("speed/data_wait")] == [1, 2, 3]
    assert all(0 < event.value < 1 for event in events.Scalars("speed/data_wait"))


@pytest.mark.parametrize(
    ("legs", "shown"),
    [
        # The run is killed before it saves, resumed, stopped in a validation, and resumed with that validation.
        ([(None, {51: 1.0}), (41, {50: 2.0}), (51, {51: 3.0})], [(50, 2.0), (51, 3.0)]),
        ([(None, {51: 1.0}), (51, {51: 2.0})], [(51, 1.0)]),
        ([(None, {51: 1.0}), (41, {51: 2.0}), (51, {51: 3.0})], [(51, 2.0)]),
    ],
)
def test_a_curve_has_one_point_a_step_where_a_run_goes_back(legs, shown, tmp_path):
    for resumed, points in legs:
        logger = TensorBoard(tmp_path, resumed)
        for step, value in points.items():
            logger.log_metrics({"val/loss": value}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/loss")] == shown


def read_slowly(folder, curve):
    """Read a curve as TensorBoard does without its data server."""
    events = PluginEventAccumulator(str(folder)).Reload()
    return [(each.step, float(each.tensor_proto.float_val[0])) for each in events.Tensors(curve)]


def read_by_server(folder, curve):
    """Read a curve as TensorBoard does with its data server, by default."""
    try:
        server = get_server_binary()
    except NoDataServerError:
        pytest.skip("TensorBoard has no data server here")
    kind = grpc_util.ChannelCredsType.LOCAL
    found = SubprocessServerDataIngester(server, str(folder), reload_interval=0, channel_creds_type=kind)
    found.start()
    provider, context = found.data_provider, RequestContext()
    scalars = provider.read_scalars(
        context, experiment_id="", plugin_name="scalars", downsample=1000, run_tag_filter=RunTagFilter(tags=[curve])
    )
    points = [(each.step, each.value) for each in scalars["."][curve]]
    # The server ends when its input is closed.
    del found, provider
    gc.collect()
    return points


# TensorBoard leaves files of its server open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("clock", ["forward", "back", "still"])
@pytest.mark.parametrize("read", [read_slowly, read_by_server])
def test_cases_s12_both_readers_show_each_step_once(read, clock, tmp_path, monkeypatch):
    begin = time.time()
    for number, resumed in enumerate((None, 2, 4)):
        moved = begin + {"forward": 1, "back": -1, "still": 0}[clock] * 100 * number
        monkeypatch.setattr("time.time", lambda moved=moved: moved)
        logger = TensorBoard(tmp_path, resumed)
        for step in range((resumed or 0) + 1, 8):
            logger.log_metrics({"val/loss": float(number)}, step)
        logger.finalize("success")
    monkeypatch.undo()
    assert read(tmp_path, "val/loss") == [(1, 0.0), (2, 0.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0), (7, 2.0)]


@pytest.mark.parametrize(
    "damage", [lambda file: file.mkdir(), lambda file: file.symlink_to("nothing"), lambda file: None]
)
def test_cases_s7_events_that_cannot_be_read_stop_no_curve(damage, tmp_path):
    damage(tmp_path / "events.out.tfevents.0")
    (tmp_path / "events.out.tfevents.1").write_bytes(bytes(99))
    logger = TensorBoard(tmp_path, 51)
    logger.log_metrics({"val/loss": 1.0}, 50)
    logger.finalize("success")
    (written,) = [file for file in tmp_path.glob("events.*.*.*.*") if file.is_file()]
    assert [event.value for event in EventAccumulator(str(written)).Reload().Scalars("val/loss")] == [1.0]


@pytest.mark.parametrize("seed", range(60))
def test_cases_s7_any_damage_leaves_the_whole_rows(seed, tmp_path):
    file, draw = tmp_path / "metrics.csv", random.Random(seed)
    logger = MetricsFile(tmp_path)
    for step in range(12):
        logger.log_metrics({"loss": step + 0.5, 'a "name", odd': 1.0}, step)
    logger.save()
    lines = file.read_bytes().splitlines(keepends=True)
    harmed = draw.sample(range(1, len(lines)), 3)
    for number in harmed:
        at, size = draw.randrange(len(lines[number])), draw.randrange(5)
        noise = draw.choice([draw.randbytes(size), bytes(size), b"\xff", b'"', b"\r", b",", b"x" * 200_000])
        lines[number] = lines[number][:at] + noise + lines[number][at + draw.randrange(3) :]
    file.write_bytes(b"".join(lines))
    logger = MetricsFile(tmp_path, 12)
    logger.log_metrics({"loss": 12.5}, 12)
    logger.save()
    whole = [line for number, line in enumerate(lines) if number not in harmed]
    # A harmed last row, or one whose end is gone, may take its neighbour along.
    kept = file.read_bytes().splitlines(keepends=True)
    assert len(set(whole) - set(kept)) <= sum(not lines[number].endswith(b"\r\n") for number in harmed)
    assert kept[-1].startswith(b"12,") and not (tmp_path / "metrics.csv.damaged.0").exists()


def test_the_bar_looks_up_what_was_logged_only_when_it_moves(folder, monkeypatch):
    looks = []
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr(
        StepProgressBar, "get_metrics", lambda self, trainer, pl_module: looks.append(trainer.global_step) or {}
    )
    options = ["--model.decoder.dim=8", "--model.decoder.depth=1", "--model.decoder.attention.heads=1"]
    options += [
        "--trainer.max_steps=23",
        "--data.seq_len=8",
        "--sample_text.generation.max_new_tokens=2",
        "--trainer.accelerator=cpu",
    ]
    assert main(["fit", "--data", "TextFiles", "--data.path", "corpus.txt", "--validate_every=null", *options]) == 0
    assert looks[:3] == [10, 20, 23]


def test_prompts_are_not_empty():
    with pytest.raises(ValueError, match=r"sample_text\.prompts: a prompt is empty"):
        SampleText(prompts=["a", ""])


def test_samples_take_the_options_of_generation_in_one_slot():
    assert SampleText().generation == GenerationOptions()
    options = GenerationOptions(max_new_tokens=3, filters=[partial(MinP, 0.2)], method=PromptLookup, seed=8)
    assert SampleText(["a"], generation=options).generation == options


def test_a_metrics_file_resumes_with_the_run(tmp_path):
    file = tmp_path / "metrics.csv"
    for resumed, steps in ((None, (0, 1, 2, 3)), (1, (2, 3, 4))):
        logger = MetricsFile(tmp_path, resumed)
        for step in steps:
            logger.log_metrics({"loss": float(step) if resumed is None else step + 0.5, "epoch": 0}, step)
        logger.log_metrics({"val": 7.0}, steps[-1])
        logger.save()
    lines = file.read_text().splitlines()
    assert lines == ["step,loss,val", "0,0.0,", "1,1.0,", "2,2.5,", "3,3.5,", "4,4.5,7.0"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_metrics_file_grows_at_its_end(tmp_path):
    file = tmp_path / "metrics.csv"
    logger = MetricsFile(tmp_path)

    def log(step, **metrics):
        """Log metrics, and return whether the file was written again."""
        before = file.stat().st_ino if file.exists() else None
        with file.open("rb") if file.exists() else nullcontext():  # keeps the number from being taken again
            logger.log_metrics(metrics, step)
            logger.save()
            return file.stat().st_ino != before

    assert log(0, loss=0.0)
    assert not log(1, loss=1.0)
    assert log(1, val=9.0)
    assert not log(2, loss=2.0)
    assert not log(2, val=8.0)
    assert not log(3, loss=3.0)
    assert log(1, loss=1.5)
    assert not log(4, val=7.0)
    lines = ["step,loss,val", "0,0.0,", "1,1.5,9.0", "2,2.0,8.0", "3,3.0,", "4,,7.0"]
    assert file.read_text().splitlines() == lines
    # A row that a crash cut off does not count.
    with file.open("a") as cut:
        cut.write("5")
    logger = MetricsFile(tmp_path, 9)
    log(9, loss=4.0)
    assert file.read_text().splitlines() == [*lines, "9,4.0,"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_row_that_becomes_shorter_leaves_nothing_behind(tmp_path):
    log = MetricsFile(tmp_path)
    for values, step in (({"a": 0.123456789, "b": 0.5}, 1), ({"a": 1.0}, 1), ({"a": 2.0}, 2)):
        log.log_metrics(values, step)
        log.save()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "1,1.0,0.5", "2,2.0,"]


def test_validation_finds_the_same_number_however_it_is_cut(folder):
    model = LanguageModel.from_config({"decoder": {"dim": 16, "depth": 1, "attention": {"heads": 2}}})
    torch.nn.init.normal_(model.decoder.head.to_logits.weight, std=0.5)
    found = []
    for processes, batch_size in ((1, 1), (1, 7), (1, 64), (2, 7)):
        data = TextFiles("corpus.txt", seq_len=8, eval_batch_size=batch_size, validation=0.4)
        run = Trainer(
            accelerator="cpu",
            devices=processes,
            strategy="auto" if processes == 1 else "ddp_fork",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
            (metrics,) = run.validate(model, data, verbose=False)
        found.append(metrics["val/bits_per_byte"])
    # 44 windows, which 7 does not divide, nor 22 of each of two processes.
    assert found[0] > 8
    assert found == pytest.approx([found[0]] * 4, abs=1e-6, rel=0)


def test_throughput_is_measured_once_a_step(monkeypatch):
    clock = count()
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    logged = {"speed/tokens_per_second": [], "speed/step_ms": [], "speed/peak_memory_gb": [], "speed/data_wait": []}
    shown = []

    def log(name, value, prog_bar=False):
        logged[name].append(value)
        if prog_bar:
            shown.append(name)

    module, loader = SimpleNamespace(log=log, device=torch.device("cpu")), Loader([])
    trainer = SimpleNamespace(
        global_step=0, world_size=1, max_steps=-1, log_every_n_steps=1, train_dataloader=loader, loggers=[]
    )
    callback = throughput.Throughput()
    loader.waited = 100.0  # before training
    callback.on_train_start(trainer, module)
    for step in (0, 1, 1, 2):  # two batches a step
        loader.waited += 0.125
        trainer.global_step = step
        if step == 2:
            callback.on_validation_start(trainer, module)
            callback.on_validation_end(trainer, module)
        callback.on_train_batch_end(trainer, module, None, torch.zeros(2, 5), 0)
    # The clock counts its readings, and validation takes two, so one second.
    assert all(0 < memory < 100 for memory in logged.pop("speed/peak_memory_gb"))
    assert logged == {
        "speed/tokens_per_second": [16.0, 8.0],
        "speed/step_ms": [1000.0, 2000.0],
        "speed/data_wait": [0.25, 0.125],
    }
    logged["speed/peak_memory_gb"] = []
    assert set(shown) == {"speed/tokens_per_second"}
    trainer.train_dataloader = [torch.zeros(2, 5)]
    callback.on_train_start(trainer, module)
    callback.on_train_batch_end(trainer, module, None, torch.zeros(2, 5), 0)
    trainer.global_step = 3
    callback.on_train_batch_end(trainer, module, None, torch.zeros(2, 5), 0)
    assert len(logged["speed/tokens_per_second"]) == 3
    assert len(logged["speed/data_wait"]) == 2


def test_what_a_run_means(tmp_path):
    runs = tmp_path / "name"
    for number, kinds in enumerate((("best", "last"), ("last",), ())):
        run = create_run(runs)
        assert run.name == str(number)
        (run / "checkpoints").mkdir()
        (run / "config.yaml").write_text("".join(f"{each}: null\n" for each in MARKS))
        for kind in kinds:
            torch.save({}, run / "checkpoints" / f"{kind}.ckpt")
    assert find_checkpoint(runs / "0") == runs / "0" / "checkpoints" / "best.ckpt"
    assert find_checkpoint(runs) == runs / "1" / "checkpoints" / "last.ckpt"
    assert find_checkpoint(runs / "0" / "checkpoints" / "last.ckpt").name == "last.ckpt"
    with pytest.raises(FileNotFoundError, match="is not a run: neither it"):
        find_checkpoint(runs / "2")
    assert find_run(runs / "0" / "config.yaml") == find_run(runs / "0" / "checkpoints" / "best.ckpt") == runs / "0"
    assert find_run(tmp_path / "config.yaml") is None


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_each_batch_seeds_the_generator_of_its_gpu(kind, monkeypatch):
    seeds = []
    for each in ("cuda", "mps"):
        monkeypatch.setattr(getattr(torch, each), "manual_seed", lambda seed, each=each: seeds.append((each, seed)))
    loop = SimpleNamespace(total_batch_idx=0)
    trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=loop), global_step=0, global_rank=0, _logger_connector=None
    )
    callback, module = ExactResume(), SimpleNamespace(device=torch.device(kind))
    callback.load_state_dict({"seed": 3})
    with torch.random.fork_rng(devices=[]):
        for loop.total_batch_idx in (0, 1, 0):
            callback.on_train_batch_start(trainer, module, None, 0)
    assert {each for each, _ in seeds} == {kind}
    first, second, again = (seed for _, seed in seeds)
    assert first == again != second
