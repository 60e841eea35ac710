"""Optimizer steps of fewer batches, at the end of an epoch: gradients, validations, checkpoints."""

import json
import logging
import math
from itertools import islice

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from tiny_pairs import NETWORK
from tiny_run import read_rows
from torch.utils.data import DataLoader

from lightning_xt.cli import main
from lightning_xt.data.pairs.copy_task import CopyTask
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.callbacks.non_finite import NonFinite
from lightning_xt.training.callbacks.step_progress_bar import StepProgressBar
from lightning_xt.training.callbacks.validation_schedule import ValidationSchedule
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

CONFIG = {
    "decoder": {"dim": 8, "depth": 1, "attention": {"heads": 2}},
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5, "weight_decay": 0.0}},
    "schedule": None,
}


def text():
    return TextFiles("corpus.txt", seq_len=8, batch_size=2)


class Watch(Callback):
    def __init__(self):
        self.batches, self.validated = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch.clone())

    def on_validation_start(self, trainer, pl_module):
        self.validated.append((len(self.batches), trainer.global_step))


def fit(model, *callbacks, data=None, resume=None, **options):
    quiet = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    options = quiet | {"precision": "64-true", "max_epochs": -1, "use_distributed_sampler": False} | options
    trainer = Trainer(callbacks=list(callbacks), **options)
    trainer.fit(model, data or text(), ckpt_path=resume)
    return trainer


STOP = """
from lightning.pytorch import Callback


class Stop(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.should_stop or batch_idx == 2
"""


class Loaded(LightningDataModule):
    """Data of one loader."""

    def __init__(self, loader):
        super().__init__()
        self.train_dataloader = self.val_dataloader = lambda: loader


def load_step():
    return torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["global_step"]


def build():
    torch.manual_seed(0)
    return LanguageModel.from_config(CONFIG)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"limit_train_batches": 3, "accumulate_grad_batches": 2}, [2, 1]),
        ({"overfit_batches": 1, "accumulate_grad_batches": 4}, [1]),
        ({"limit_train_batches": 5, "accumulate_grad_batches": 3}, [3, 2]),
        ({"limit_train_batches": 4, "accumulate_grad_batches": 2}, [2, 2]),
    ],
)
def test_cases_r5_a_gradient_is_divided_by_the_batches_of_its_step(folder, options, sizes):
    watch, model = Watch(), build()
    fit(model, watch, max_steps=4, limit_val_batches=0, **options)
    plain = build().double()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    batches, sizes = iter(watch.batches), (sizes * 4)[:4]
    assert len(watch.batches) == sum(sizes)
    for size in sizes:
        optimizer.zero_grad()
        (sum(plain.loss(batch) for batch in islice(batches, size)) / size).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_gradient_is_a_mean_over_the_targets_of_all_batches(folder):
    """Rows with targets of -100 train alike in one batch and in two; one batch trains as without a Trainer, in bits."""
    tokens = torch.randint(0, 255, (2, 17), generator=torch.Generator().manual_seed(0))
    tokens[0, 4:] = -100
    found = []
    for rows, batches in ((2, 1), (1, 2), (2, 0)):
        model = build().double()
        with torch.no_grad():
            model.network.head.to_logits.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        if batches:
            loader = DataLoader(list(tokens), batch_size=rows)
            options = {"max_steps": 1, "accumulate_grad_batches": batches, "limit_val_batches": 0}
            fit(model, data=Loaded(loader), **options)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            model.loss(tokens).backward()
            optimizer.step()
        found.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-14)
    assert torch.equal(found[0], found[2])


def test_cases_r5_a_gradient_of_pairs_is_divided_by_the_tokens_of_its_step(folder):
    class KeepsBatches(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            found.append([each.clone() for each in batch])

    def build_pairs():
        torch.manual_seed(0)
        options = {"optimizer": CONFIG["optimizer"], "schedule": None, "vocab": data.vocab}
        return Seq2Seq.from_config({**NETWORK, **options})

    data, found = CopyTask(min_length=1, max_length=9, batch_size=2, validation_size=2, test_size=2, seed=3), []
    data.prepare_data()
    model = build_pairs()
    options = {"limit_train_batches": 3, "accumulate_grad_batches": 2, "limit_val_batches": 0, "max_steps": 2}
    fit(model, KeepsBatches(), data=data, **options)
    assert len(found) == 3
    plain = build_pairs().double()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for batches in (found[:2], found[2:]):
        optimizer.zero_grad()
        counts = [int((tgt[:, 1:] != 0).sum()) for _, tgt, *_ in batches]
        losses = [plain(*batch[:2], mask=batch[2]) * count for batch, count in zip(batches, counts, strict=True)]
        (sum(losses) / sum(counts)).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_cases_r5_validations_count_steps(folder, accumulate):
    watch, limits = Watch(), {"limit_train_batches": 3, "max_epochs": 4, "limit_val_batches": 1}
    every = {"val_check_interval": 3 * accumulate, "check_val_every_n_epoch": None}
    trainer = fit(build(), watch, ValidationSchedule(), accumulate_grad_batches=accumulate, **limits, **every)
    last = 4 * math.ceil(3 / accumulate)
    assert trainer.global_step == last
    assert [step for _, step in watch.validated] == sorted({*range(3, last + 1, 3), last})
    # After the last batch of an epoch or the last of a full step.
    assert all(seen % 3 == 0 or seen % 3 % accumulate == 0 for seen, _ in watch.validated)


def test_cases_r5_a_trainer_that_should_stop_finishes_its_step(folder):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.should_stop or batch_idx == 2

    watch = Watch()
    trainer = fit(
        build(), watch, Stop(), ValidationSchedule(), max_steps=9, accumulate_grad_batches=2, limit_val_batches=1
    )
    assert watch.validated == [(4, 2)]
    assert trainer.global_step == 2
    assert trainer.min_steps is None


@pytest.mark.parametrize(("given", "said"), [([], False), (["--trainer.min_steps", "6"], True)])
def test_cases_r5_only_a_users_min_steps_are_reported(given, said, fresh, monkeypatch):
    (fresh / "stop.py").write_text(STOP)
    lines = []
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    monkeypatch.setattr(logger, "callHandlers", lambda record: lines.append(record.getMessage()))
    command = ["fit", "-c", "tiny.yaml", "--trainer.callbacks+=stop.Stop", "--trainer.accumulate_grad_batches", "2"]
    assert main([*command, "--trainer.max_steps", "9", *given]) == 0
    assert load_step() == (9 if said else 2)
    assert any("min_steps" in each for each in lines) == said


def test_cases_r5_min_steps_stay_where_a_step_fails(folder):
    class Fail(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            assert trainer.min_steps == (1 if batch_idx % 2 == 0 else trainer.global_step + 1)
            if batch_idx == 5:
                self.trainer = trainer
                raise RuntimeError("in a step")

    failed = Fail()
    options = {"max_steps": 9, "min_steps": 1, "accumulate_grad_batches": 2, "limit_val_batches": 1}
    with pytest.raises(RuntimeError, match="in a step"):
        fit(build(), failed, ValidationSchedule(), **options)
    assert failed.trainer.min_steps == 1


def test_cases_r5_a_resume_from_the_checkpoint_of_step_0(folder):
    class Save(Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.save_checkpoint("zero.ckpt", weights_only=False)

    every = {"val_check_interval": 2, "check_val_every_n_epoch": None, "limit_val_batches": 1, "max_steps": 2}
    fit(build(), Save(), **every)
    watch = Watch()
    fit(build(), watch, ValidationSchedule(), resume="zero.ckpt", **every)
    assert watch.validated == [(2, 2)]


def test_cases_r5_epochs_end_with_a_validation_and_resume_exactly(fresh):
    options = ["--trainer.limit_train_batches", "3", "--trainer.accumulate_grad_batches", "2", "--validate_every", "3"]
    whole = ["fit", "-c", "tiny.yaml", *options, "--trainer.max_steps=-1", "--model.schedule", "null"]
    assert main([*whole, "--name", "whole", "--trainer.max_epochs", "4"]) == 0
    assert [int(row["step"]) for row in read_rows("runs/whole/0") if row["val/loss"]] == [3, 6, 8]
    assert main([*whole, "--name", "part", "--trainer.max_epochs", "1"]) == 0
    best = torch.load("runs/part/0/checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == 2
    assert main([*whole, "--name", "part", "--ckpt_path", "last", "--trainer.max_epochs", "4"]) == 0
    left, right = (torch.load(f"runs/{name}/0/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "part"))
    assert left["global_step"] == right["global_step"] == 8
    torch.testing.assert_close(left["state_dict"], right["state_dict"], rtol=0, atol=0)


def test_cases_r5_a_resume_with_larger_steps(fresh):
    fit = ["fit", "-c", "tiny.yaml", "--validate_every", "4", "--model.schedule", "null", "--trainer.max_steps"]
    assert main([*fit, "3", "--trainer.accumulate_grad_batches", "2"]) == 0
    assert main([*fit, "9", "--trainer.accumulate_grad_batches", "4", "--ckpt_path", "last"]) == 0
    assert [int(row["step"]) for row in read_rows() if row["val/loss"]] == [3, 4, 8, 9]


def test_cases_r5_the_batches_of_skipped_steps(folder):
    class Broken(LanguageModel):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * math.nan

    torch.manual_seed(0)
    model = Broken({"target": 256})
    watch = NonFinite(4)
    found = []
    watch._write = lambda trainer, steps: found.extend([watch._ends[step - 1], watch._ends[step]] for step in steps)
    with pytest.raises(ValueError, match="in 4 optimizer steps in a row, 1 to 4"):
        fit(model, watch, max_steps=9, limit_train_batches=3, accumulate_grad_batches=2, limit_val_batches=0)
    assert json.dumps(found) == "[[0, 2], [2, 3], [3, 5], [5, 6]]"


def test_cases_r5_the_batches_of_skipped_steps_before_a_resume(folder):
    class Broken(LanguageModel):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * math.nan

    options = {"limit_train_batches": 3, "accumulate_grad_batches": 2, "limit_val_batches": 0}
    limit, found = 4, []
    trainer = fit(Broken({"target": 256}), NonFinite(limit), max_steps=2, **options)
    trainer.save_checkpoint("two.ckpt", weights_only=False)
    watch = NonFinite(limit)
    watch._write = lambda trainer, steps: found.extend([watch._ends[step - 1], watch._ends[step]] for step in steps)
    with pytest.raises(ValueError, match="in 4 optimizer steps in a row, 1 to 4"):
        fit(Broken({"target": 256}), watch, max_steps=9, resume="two.ckpt", **options)
    assert found[:2] == [[0, 2], [2, 3]]


def test_cases_r5_the_bar_counts_an_epoch(folder):
    class Look(Callback):
        def on_train_batch_end(self, trainer, *_):
            assert trainer.progress_bar_callback.total_train_batches == 3

    options = {"limit_train_batches": 3, "accumulate_grad_batches": 2, "limit_val_batches": 0}
    fit(build(), StepProgressBar(), Look(), enable_progress_bar=True, max_steps=3, **options)
