"""Mistakes of the kinds that users of other projects report."""

# ruff: noqa: E501 - a row of a table is a line

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hostile.case import Case
from tiny_run import TINY

FIT = ["fit", "-c", "tiny.yaml"]
GENERATE = ["generate", "runs/tiny", "--prompt", "a", "--max_new_tokens", "2"]
LAST = "runs/tiny/0/checkpoints/last.ckpt"
FAMILIES = {
    "--model.decoder.attention": "Mixer", "--model.decoder.attention.position": "Position",
    "--model.decoder.attention.normalizer": "Normalizer", "--model.decoder.attention.projection": "Projection",
    "--model.decoder.attention.score": "Score", "--model.decoder.feedforward": "FeedForward",
    "--model.decoder.norm": "Norm", "--model.decoder.placement": "Placement", "--model.decoder.residual": "Residual",
    "--model.decoder.head": "Head", "--model.decoder.layout": "Layout", "--model.decoder.shift": "Shift",
    "--model.objective": "Objective", "--model.schedule": "Schedule", "--model.optimizer": "Optimizer",
    "--data": "DataModule", "--model": "LightningModule",
}  # fmt: skip
"""Options that take a class, and their family."""
STRANGERS = (
    "torch.nn.Linear",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning_xt.generation.filters.top_k.TopK",
)


def cases() -> Iterator[Case]:
    """Yield all cases of reports."""
    for number, (command, says) in enumerate([*_classes(), *_options(), *_helps(), *_numbers(), *_parts(), *_runs()]):
        yield Case(name=f"report: {number} {' '.join(command)[:60]!r}", command=command, says=says)
    for number, (before, after, says) in enumerate(_empty()):
        yield Case(
            name=f"report: {number} {after[:40]!r} in a config",
            command=["fit", "-c", "mine.yaml"],
            says=says,
            files={"mine.yaml": TINY.replace(before, after, 1)},
        )
    for number, (path, value, says) in enumerate(_contents()):
        for command in (["info", "in.ckpt"], [*FIT, "--ckpt_path", "in.ckpt", "--trainer.max_steps", "8"]):
            yield Case(
                name=f"report: {command[0]}, a checkpoint whose {'.'.join(map(str, path))} is changed, {number}",
                command=command,
                says=["in.ckpt cannot be read as a checkpoint: ", says],
                files={"in.ckpt": _change(path, value)},
            )


def _classes() -> Iterator[tuple[list[str], list[str]]]:
    for number, (slot, family) in enumerate(FAMILIES.items()):
        for stranger in (STRANGERS[number % 3], STRANGERS[(number + 1) % 3]):
            yield [*FIT, f"{slot}={stranger}"], [slot, f"{stranger} is not a subclass of {family}"]


def _options() -> Iterator[tuple[list[str], list[str]]]:
    for given, meant in (
        ("--lr", "--model.optimizer.lr"), ("--heads", "--model.decoder.attention.heads"),
        ("--model.heads", "--model.decoder.attention.heads"), ("--model.position", "--model.decoder.attention.position"),
        ("--model.dim", "--model.decoder.dim"), ("--model.depth", "--model.decoder.depth"),
        ("--model.lr", "--model.optimizer.lr"), ("--model.warmup_steps", "--model.schedule.warmup_steps"),
        ("--model.decoder.kv_heads", "--model.decoder.attention.kv_heads"),
        ("--model.decoder.base", "--model.decoder.attention.position.base"),
        ("--model.decoder.qk_norm", "--model.decoder.attention.qk_norm"),
        ("--seq_len", "--data.seq_len"), ("--max_steps", "--trainer.max_steps"), ("--precision", "--trainer.precision"),
        ("--seed", "--seed_everything"), ("--validate_evry", "--validate_every"),
    ):  # fmt: skip
        yield [*FIT, given, "2"], [given.rpartition(".")[2], f"did you mean {meant}"]
    for flag in ("--nam", "--conf", "--trainer.max_step", "--model.decoder.dept", "--data.batch"):
        yield [*FIT, f"{flag}=2"], ["unknown option", "did you mean"]
    for command, option, value in (
        ("fit", "--output", "out.txt"), ("validate", "--output", "out.txt"), ("test", "--output", "out.txt"),
    ):  # fmt: skip
        end = [] if command == "fit" else ["--ckpt_path", "last"]
        yield [command, "-c", "tiny.yaml", *end, option, value], [option]


def _helps() -> Iterator[tuple[list[str], list[str]]]:
    for request, says in (
        (["--modle.help"], "unknown option '--modle'"),
        (["--model.decodr.help"], "--model.decodr: unknown option of LanguageModel 'decodr'; did you mean decoder?"),
        (["--model.decoder.attention.positon.help"], "unknown option of Attention 'positon'; did you mean position"),
        (["--data.help", "TextFile"], "--data.help: unknown DataModule class 'TextFile'; did you mean TextFiles?"),
        (["--model.help=Decodr"], "--model.help: unknown LightningModule class 'Decodr'"),
        (
            ["--model.decoder.attention.position.help", "Alibi"],
            "unknown Position class 'Alibi'; did you mean ALiBi or HardALiBi?",
        ),
        (["--data.help", "os.system"], "os.system is not imported"),
        (["--model.help=subprocess.Popen"], "subprocess.Popen is not imported"),
        (["--trainer.callbacks.help", "torch.hub.load"], "torch.hub.load"),
        (["--trainer.max_step.help"], "--trainer.max_step"),
        (["--sampling.methd.help"], "--sampling.methd"),
        (["--standard.run.help"], "--standard.run"),
    ):
        yield ["fit", *request], [says]


def _numbers() -> Iterator[tuple[list[str], list[str]]]:
    for option, values in (
        ("top_p", ("nan", "-0.1", "1.5")), ("min_p", ("nan", "-1", "2")), ("temperature", ("nan", "-1", "inf")),
        ("top_k", ("0", "-3", "1.5")), ("max_new_tokens", ("-1", "1.5", "nan")), ("batch", ("0", "-1")),
        ("num_return_sequences", ("0", "-2")), ("window", ("0", "-1")), ("guidance", ("nan", "1e39")),
    ):  # fmt: skip
        yield from (([*GENERATE, f"--{option}={value}"], [option]) for value in values)
    for option, value in (("beams", "0"), ("length_penalty", "1000"), ("length_penalty", "nan"), ("n_best", "0"),
                          ("length_penalty", "-1"), ("patience", "-1")):  # fmt: skip
        yield [*GENERATE, "--method", "BeamSearch", f"--method.{option}={value}"], [option]
    for option, value in (
        ("trainer.max_steps", "x"), ("trainer.gradient_clip_val", "nan"), ("trainer.precision", "bf15"),
        ("trainer.limit_train_batches", "0"), ("trainer.devices", "99"), ("model.optimizer.lr", "fast"), ("model.schedule.warmup_steps", "-1"),
        ("data.seq_len", "0"), ("data.batch_size", "-1"), ("data.validation", "1.5"), ("checkpoint_every", "0"),
    ):  # fmt: skip
        yield [*FIT, f"--{option}={value}"], [option.rpartition(".")[2]]


def _parts() -> Iterator[tuple[list[str], list[str]]]:
    for name in ("BackboneFinetuning", "LearningRateFinder", "ModelPruning", "SpikeDetection", "BatchSizeFinder",
                 "GradientAccumulationScheduler", "StochasticWeightAveraging"):  # fmt: skip
        yield [*FIT, f"--trainer.callbacks+={name}"], [name]
    for monitor in ("val_loss", "loss", "val/los", "train/accuracy"):
        flags = ["--trainer.callbacks+=EarlyStopping", f"--trainer.callbacks.monitor={monitor}"]
        yield [*FIT, *flags], [monitor]
    address = "http://127.0.0.1:9/options.yaml"
    for option in ("--model.optimizer", "--model.decoder", "--trainer.callbacks+", "--data", "--sample_text"):
        yield [*FIT, f"{option}={address}"], [option.rstrip("+")]
    yield ["fit", "-c", address], ["127.0.0.1:9/options.yaml"]


def _runs() -> Iterator[tuple[list[str], list[str]]]:
    for command in ("validate", "test", "predict"):
        yield [command, "runs/none"], ["runs/none"]
        yield [command, "runs/tiny", "--ckpt_path", "nothing.ckpt"], ["nothing.ckpt"]
    yield ["fit", "runs/none", "--resume"], ["runs/none"]
    yield ["fit", "runs/tiny"], ["runs/tiny"]
    yield ["generate", "runs/none", "--prompt", "a"], ["runs/none"]
    yield ["info", "runs/none"], ["runs/none"]
    yield ["average", "runs/none"], ["runs/none"]


def _empty() -> Iterator[tuple[str, str, list[str]]]:
    for before, after, name in (
        ("max_steps: 6", "max_steps: ", "max_steps"),
        ("dim: 8", "dim: ", "dim"),
        ("validate_every: 4", "trainer:", "trainer"),
        ("sampling: {max_new_tokens: 4}", "sampling:", "sampling"),
        ("init_args: {path: corpus.txt, seq_len: 8, batch_size: 2, eval_batch_size: 4}", "init_args:", "init_args"),
        ("  class_path: LanguageModel", "  class_path:", "class_path"),
        ("checkpoint_every: 4", "checkpoint_every:", "checkpoint_every"),
        ("seq_len: 8", "seq_len: ", "seq_len"),
    ):
        yield before, after, [name]


def _contents() -> Iterator[tuple[tuple[Any, ...], Any, str]]:
    yield ("global_step",), -1, "its global_step is -1, not a whole number"
    yield ("epoch",), "one", "its epoch is 'one', not a whole number"
    yield ("hyper_parameters",), 1.0, "its hyper_parameters is 1.0, not a mapping of options"
    yield ("hyper_parameters", "decoder", "class_path"), 7, "its hyper_parameters is dict, not a mapping of options"
    yield ("callbacks",), [], "its callbacks is list, not a mapping"
    yield ("callbacks", "NonFinite"), 7, "its callbacks.NonFinite is 7, not a mapping"
    yield ("callbacks", "NonFinite", "skipped"), "x", "its callbacks.NonFinite.skipped is 'x', not a whole number"
    yield ("callbacks", "ExactResume", "seed"), [], "its callbacks.ExactResume.seed is list, not a whole number"
    yield ("optimizer_states",), {}, "its optimizer_states is dict, not a list"
    yield ("optimizer_states", 0, "param_groups", 0, "params"), "x", "params is 'x', not a list"
    yield ("lr_schedulers", 0, "last_epoch"), -7, "its lr_schedulers[0].last_epoch is -7, not a whole number"
    yield ("loops", "fit_loop"), None, "its loops.fit_loop is None, not a mapping"
    yield ("TextFiles", "samples_seen"), None, "its TextFiles.samples_seen is None, not a whole number"
    yield ("lightning_xt", "metrics", "val/loss"), "low", "its lightning_xt.metrics.val/loss is 'low', not a number"
    yield ("lightning_xt", "tokenizers"), [1], "its lightning_xt.tokenizers is list, not a mapping"


def _change(path: tuple[Any, ...], value: Any) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        contents = holder = torch.load(file.parent / LAST, weights_only=True)
        for name in path[:-1]:
            holder = holder[name]
        holder[path[-1]] = value
        torch.save(contents, file)

    return write
