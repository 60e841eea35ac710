"""A resumed run takes the batches of an uninterrupted run, whatever Lightning's loops do between."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.text.windows import TrainingWindows

# Lightning 2.6 uses a deprecated pytree function of torch 2.13; every other warning is an error here.


class Recorder(LightningModule):
    """Module that trains one number and records its batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.scored, self.prompts = [], 0, []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.clone())
        return self.weight * batch.float().mean()

    def validation_step(self, batch, batch_idx):
        self.scored += int(batch.scored.sum())

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        self.prompts += batch
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(torch.randint(256, (997,), generator=torch.Generator().manual_seed(1), dtype=torch.uint8).numpy())
    return str(path)


def trainer(folder, steps, **options):
    """Build a trainer as this package does: endless data, validation every 3 batches."""
    settings = {
        "max_steps": steps,
        "max_epochs": -1,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": folder,
    }
    return Trainer(**{**settings, **options})


class Saver(Callback):
    """Callback that saves when `ModelCheckpoint` does, after every batch and every validation."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"batch{len(pl_module.seen)}.ckpt")

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"validation{len(pl_module.seen)}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"epoch{len(pl_module.seen)}.ckpt")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_after_a_resume(file, tmp_path, accumulate):
    options = {"seq_len": 7, "batch_size": 2, "seed": 5}
    whole, batches = Recorder(), 4 * accumulate
    run = trainer(tmp_path, 4, accumulate_grad_batches=accumulate, callbacks=[Saver(tmp_path)])
    run.fit(whole, TextFiles(file, **options))
    assert len(whole.seen) == batches
    moments = [f"batch{n}" for n in range(1, batches + 1)] + [f"validation{n}" for n in range(3, batches + 1, 3)]
    for name in [*moments, f"epoch{batches}"]:
        path = tmp_path / f"{name}.ckpt"
        done = int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
        rest, data = Recorder(), TextFiles(file, **options)
        saved = torch.load(path, weights_only=True)["TextFiles"]
        assert saved == {"samples_seen": done * 2, "hash": data.content_hash}
        trainer(tmp_path, 4, accumulate_grad_batches=accumulate).fit(rest, data, ckpt_path=path, weights_only=True)
        # A checkpoint holds no gradients of half a step, but the batches still resume where they stopped.
        assert torch.equal(torch.stack([*whole.seen[:done], *rest.seen]), torch.stack(whole.seen)), name
        assert data.samples_seen == batches * 2


def test_another_batch_size_resumes_from_the_same_sample(file, tmp_path):
    options = {"seq_len": 7, "seed": 5}
    trainer(tmp_path, 3, callbacks=[Saver(tmp_path)]).fit(Recorder(), TextFiles(file, batch_size=4, **options))
    data, rest = TextFiles(file, batch_size=3, **options), Recorder()
    trainer(tmp_path, 5).fit(rest, data, ckpt_path=tmp_path / "batch3.ckpt")
    assert torch.equal(torch.cat(rest.seen), samples(file, range(12, 18), **options))
    assert data.samples_seen == 18


def samples(file, numbers, **options):
    """Return training samples of the windows, without a loader."""
    data = TextFiles(file, **options)
    return TrainingWindows(data.splits.train, data.seq_len, data.seed).__getitems__(numbers)


def test_epochs_continue_but_overfitting_repeats(file, tmp_path):
    options = {"seq_len": 7, "batch_size": 2}
    epochs = {"max_epochs": 2, "val_check_interval": 1.0, "check_val_every_n_epoch": 1}
    going_on, repeating = Recorder(), Recorder()
    trainer(tmp_path, -1, limit_train_batches=3, **epochs).fit(going_on, TextFiles(file, **options))
    assert torch.equal(torch.cat(going_on.seen), samples(file, range(12), **options))
    trainer(tmp_path, -1, overfit_batches=3, **epochs).fit(repeating, TextFiles(file, **options))
    assert torch.equal(torch.stack(repeating.seen[:3]), torch.stack(repeating.seen[3:]))


def test_the_object_serves_a_new_run_from_the_beginning(file, tmp_path):
    data, first, second = TextFiles(file, seq_len=7, batch_size=2), Recorder(), Recorder()
    trainer(tmp_path, 4, callbacks=[Saver(tmp_path)]).fit(first, data)
    trainer(tmp_path, 0).validate(second, data, ckpt_path=tmp_path / "batch2.ckpt", verbose=False)
    trainer(tmp_path, 4).fit(second, data)
    assert torch.equal(torch.stack(first.seen), torch.stack(second.seen))
    run = trainer(tmp_path, 2)
    run.fit(second, data)
    run.fit_loop.epoch_loop.max_steps = 4
    run.fit(second, data)
    assert torch.equal(torch.stack(first.seen), torch.stack(second.seen[4:]))


def test_loading_draws_no_random_numbers(file):
    data = TextFiles(file, seq_len=7)
    state = torch.get_rng_state()
    next(iter(data.train_dataloader()))
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_serve_the_same_batches(file):
    batches = []
    for num_workers in (0, 2):
        data = TextFiles(file, seq_len=7, batch_size=3, num_workers=num_workers, seed=2)
        stream = iter(data.train_dataloader())
        batches.append(torch.stack([next(stream) for _ in range(5)]))
        assert sum(int(batch.scored.sum()) for batch in data.val_dataloader()) == int(997 * 0.05) - 1
    assert torch.equal(*batches)


def test_the_whole_trainer_cycle(file, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\nb\nc\n")
    data, model = TextFiles(file, seq_len=7, stride=3, batch_size=2, predict_prompts=str(prompts)), Recorder()
    run = trainer(tmp_path, 0)
    run.validate(model, data, verbose=False)
    assert model.scored == int(997 * 0.05) - 1
    run.test(model, data, verbose=False)
    assert model.scored == 2 * (int(997 * 0.05) - 1)
    run.predict(model, data)
    assert model.prompts == [{"id": 0, "prompt": "a"}, {"id": 1, "prompt": "b"}, {"id": 2, "prompt": "c"}]


class Gathering(Recorder):
    """Recorder that writes each rank's batches to files, because processes share no memory."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        torch.save((self.seen, self.scored), self.folder / f"rank{self.trainer.global_rank}")


def test_two_processes_share_what_one_would_take(file, tmp_path):
    run = trainer(tmp_path, 3, devices=2, strategy="ddp_fork", num_sanity_val_steps=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        run.fit(Gathering(tmp_path), TextFiles(file, seq_len=7, batch_size=2))
    alone = Recorder()
    trainer(tmp_path, 3, num_sanity_val_steps=0).fit(alone, TextFiles(file, seq_len=7, batch_size=4))
    (seen0, scored0), (seen1, scored1) = (torch.load(tmp_path / f"rank{rank}") for rank in range(2))
    together = [torch.cat(parts) for parts in zip(seen0, seen1, strict=True)]
    assert torch.equal(torch.stack(together), torch.stack(alone.seen))
    assert scored0 + scored1 == alone.scored == int(997 * 0.05) - 1
