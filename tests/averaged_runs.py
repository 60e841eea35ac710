"""Tiny runs whose weights are averaged, and callbacks that watch and save them."""

import torch
from lightning.pytorch import Callback, Trainer

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.step_boundaries import at_step_boundary

CONFIG = {
    "decoder": {"dim": 8, "depth": 1, "attention": {"heads": 1}, "dropout": 0.3},
    "schedule": {"class_path": "WarmupCosine", "init_args": {"warmup_steps": 2}},
}


def build(optimizer="AdamW", schedule=CONFIG["schedule"], **decoder):
    torch.manual_seed(3)
    own = {"optimizer": optimizer, "schedule": schedule, "decoder": CONFIG["decoder"] | decoder}
    return LanguageModel.from_config(own)


def fit(model, *callbacks, steps=6, ckpt_path=None, **options):
    torch.manual_seed(5 if ckpt_path is None else 99)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    quiet |= {"max_epochs": -1, "use_distributed_sampler": False, "enable_checkpointing": False}
    counted = {"check_val_every_n_epoch": None, "val_check_interval": 4, "accelerator": "cpu", "devices": 1}
    trainer = Trainer(max_steps=steps, callbacks=list(callbacks), **quiet | counted | options)
    trainer.fit(model, TextFiles(path="corpus.txt", seq_len=16, batch_size=2, eval_batch_size=4), ckpt_path=ckpt_path)
    return trainer


class Watch(Callback):
    """Callback that records the weights after each step, and in the validations."""

    def __init__(self):
        self.steps, self.seen = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps.append(flat(pl_module.state_dict()))

    def on_validation_epoch_start(self, trainer, pl_module):
        self.seen.append(flat(pl_module.state_dict()))

    def on_validation_epoch_end(self, trainer, pl_module):
        self.seen.append(flat(pl_module.state_dict()))


def flat(state):
    return torch.cat([value.detach().clone().flatten() for value in state.values() if value.is_floating_point()])


class Saving(Callback):
    """Callback that saves at every hook that may save a checkpoint."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4 and at_step_boundary(trainer):
            trainer.save_checkpoint("training.ckpt")

    def on_validation_batch_start(self, trainer, *_):
        trainer.save_checkpoint("validating.ckpt")

    def on_validation_end(self, trainer, *_):
        trainer.save_checkpoint("validated.ckpt")

    def on_train_end(self, trainer, *_):
        trainer.save_checkpoint("ended.ckpt")


class Failing(Callback):
    def on_validation_batch_end(self, *_):
        raise RuntimeError("on purpose")


class SavingWhenItFails(Callback):
    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint("failed.ckpt")


class Stopping(Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 4
