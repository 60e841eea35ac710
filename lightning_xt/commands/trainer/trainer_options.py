"""Options of fit, validate, test and predict besides those of the Trainer, the model and the data."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from lightning_xt.checkpoints.runs import ROOT, find_run
from lightning_xt.commands.models.inference import Inference
from lightning_xt.commands.options.run_names import check_name
from lightning_xt.commands.trainer.standard_parts import StandardParts
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.messages import UserError
from lightning_xt.system.shipped_configs import LISTED
from lightning_xt.training.callbacks.figures import Figures
from lightning_xt.training.callbacks.non_finite import NonFinite
from lightning_xt.training.callbacks.sample_text import SampleText

TRAINER_DEFAULTS = MappingProxyType(
    {
        "max_epochs": -1,
        "default_root_dir": ROOT,
        "log_every_n_steps": 20,
        # The data splits itself over processes, and a resume must find the samples that follow.
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
    }
)
CALLBACKS = MappingProxyType(
    {"sample_text": SampleText, "figures": Figures, "non_finite": NonFinite, "inference": Inference}
)
"""Callbacks whose options stand at the top of a config."""
ON_REQUEST = ("figures",)
"""Callbacks that a command has only if they are given."""


def add_trainer_options(parser: LightningArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--name", type=str | None, default=None, help="Name of the run. None = the first config file's."
    )
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="A run or a checkpoint whose weights a new run starts from, and nothing else. None = none.",
    )
    parser.add_argument(
        "--validate_every",
        type=int | None,
        default=500,
        help="Optimizer steps between two validations; the last step is always validated. None = only that.",
    )
    parser.add_argument(
        "--checkpoint_every", type=int, default=500, help="Optimizer steps between two saves of last.ckpt."
    )
    parser.add_argument(
        "--keep_checkpoints",
        type=int,
        default=0,
        help="How many of the newest saves to keep as step-N.ckpt too, such as for average.",
    )
    parser.add_argument("--output", type=str | None, default=None, help="The file that predict writes.")
    parser.add_class_arguments(GenerationOptions, "sampling")
    parser.add_class_arguments(StandardParts, "standard")
    for name, kind in CALLBACKS.items():
        default = None if name in ON_REQUEST else {"class_path": kind.__name__}
        text = f"{(kind.__doc__ or '').partition(chr(10))[0]} null = none."
        parser.add_argument(f"--{name}", type=kind | None, default=default, help=text)
    parser.link_arguments("data.vocab", "model.init_args.vocab", apply_on="instantiate")
    parser.set_defaults({"model": {"class_path": "lightning_xt.training.language_model.LanguageModel"}})


def set_intervals(options: Any, configs: Mapping[Path, dict[str, Any]]) -> None:
    """Translate --validate_every into batches, which the Trainer counts; UserError if it was given intervals itself."""
    _refuse_other_intervals(options.trainer, configs)
    options.trainer.check_val_every_n_epoch = None
    # Lightning counts batches, and `ValidationSchedule` steps. Without our interval, one longer than any run.
    batches = (options.trainer.accumulate_grad_batches or 1) * (options.validate_every or 2**40)
    options.trainer.val_check_interval = batches


def check_beginning(command: str, options: Any, args: Sequence[str]) -> None:
    """Raise a UserError for an invalid seed or name of a run, or a `fit` of a model that nobody has asked for."""
    seed, name = options.seed_everything, options.name
    if not isinstance(seed, bool) and isinstance(seed, int) and not 0 <= seed < 2**32:
        raise UserError(f"--seed_everything is {seed}; it must be from 0 to 2**32 - 1")
    if name is not None:
        check_name(name, "--trainer.default_root_dir")
    if command == "fit":
        _check_model_given(options, args)


def check_options(command: str, options: Any) -> None:
    """Raise a UserError for invalid values."""
    for name in ("validate_every", "checkpoint_every"):
        if options[name] is not None and options[name] < 1:
            raise UserError(f"--{name} is {options[name]}; it must be at least 1 optimizer step")
    if options.keep_checkpoints < 0:
        raise UserError(f"--keep_checkpoints is {options.keep_checkpoints}; it must be at least 0")
    if (batches := options.trainer.accumulate_grad_batches) is not None and batches < 1:
        raise UserError(f"--trainer.accumulate_grad_batches is {batches}; it must be at least 1 batch")
    if (logged := options.trainer.log_every_n_steps or 0) < 0:
        raise UserError(
            f"--trainer.log_every_n_steps is {logged}; it must be at least 1 optimizer step, or 0 for never"
        )
    limit, devices = options.trainer.gradient_clip_val, options.trainer.devices
    if limit is not None and not 0 <= limit < math.inf:
        raise UserError(f"--trainer.gradient_clip_val is {limit}; it must be at least 0, or null not to clip")
    _check_accelerator(options.trainer.accelerator)
    if not _counts(devices):
        raise UserError(
            f"--trainer.devices is {devices}; it must be auto, a number of at least 1, or a list of numbers"
        )
    _refuse_idle_options(options.trainer)
    trial = options.trainer.fast_dev_run
    if command == "fit" and trial and options.ckpt_path is not None:
        raise UserError(
            f"--trainer.fast_dev_run is {str(trial).lower()}, which tries first batches and resumes no run; omit "
            "--ckpt_path, or give its weights: --init_from RUN"
        )
    if command == "predict" and options.output is None:
        raise UserError("predict needs a file to write: --output out.jsonl")


def _check_accelerator(name: Any) -> None:
    """Raise a UserError for a kind of GPU that this machine, or this torch, does not have."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found["gpu"] = any(found.values())
    if found.get(name, True):
        return
    reason = f"torch {torch.__version__} finds none on this machine"
    if not torch.backends.cuda.is_built() and name != "mps":
        reason = f"torch {torch.__version__} is built without CUDA (https://pytorch.org/get-started has others)"
    raise UserError(
        f"--trainer.accelerator {name} needs a GPU, but {reason}; omit it, or set --trainer.accelerator cpu"
    )


def _refuse_idle_options(given: Any) -> None:
    """Raise a UserError for options of the Trainer that would do nothing here, or harm."""
    if given.max_steps == 0:
        raise UserError("--trainer.max_steps is 0, so nothing would be trained; give at least 1 optimizer step")
    if given.limit_train_batches is not None and given.limit_train_batches == 0:
        raise UserError("--trainer.limit_train_batches is 0, so nothing would be trained; give at least 1 batch")
    for name, instead in (
        ("barebones", "omit it: a run logs its own speed, and --standard.NAME null switches its parts off"),
        ("use_distributed_sampler", "omit it: the data split themselves over processes"),
        ("model_registry", "omit it: checkpoints lie in the run's folder, and no registry is read or written"),
    ):
        if given[name]:
            raise UserError(f"--trainer.{name} is {str(given[name]).lower()}; {instead}")


def _counts(devices: Any) -> bool:
    """Return whether a value says how many devices to use, or which."""
    if isinstance(devices, str):
        return devices == "auto" or re.fullmatch(r"-1|[1-9]\d*|\d+(\s*,\s*\d*)+", devices.strip()) is not None
    return not isinstance(devices, int) or devices == -1 or devices >= 1


def _refuse_other_intervals(given: Any, configs: Mapping[Path, dict[str, Any]]) -> None:
    # Those that we have written ourselves, from --validate_every.
    runs = (content for file, content in configs.items() if find_run(file) is not None)
    saved = next(runs, {}).get("trainer") or {}
    for name, default in (("val_check_interval", 1.0), ("check_val_every_n_epoch", 1)):
        if given[name] not in (None, default, saved.get(name)):
            raise UserError(
                f"--trainer.{name} is {given[name]}, but validations are counted in optimizer steps here; "
                "use --validate_every"
            )
    # With such a limit there are epochs.
    limited = given.get("overfit_batches") or given.get("limit_train_batches") is not None
    for name, instead in (("max_epochs", "max_steps"), ("min_epochs", "min_steps")):
        if given[name] not in (None, -1) and not limited:
            raise UserError(
                f"--trainer.{name} is {given[name]}, but the training data has no end, so it has no epochs; "
                f"use --trainer.{instead}"
            )


def _check_model_given(options: Any, args: Sequence[str]) -> None:
    """Raise a UserError for a `fit` of the default model that nobody has asked for."""
    if options.config or any(arg.startswith(("--model", "--print")) for arg in args):
        return
    if not any(name.startswith("LXT_FIT__MODEL") for name in os.environ):
        raise UserError(
            "fit would train its default model, which is too large for most CPUs: give a recipe, such as "
            f"-c language/quickstart.yaml, or options of the model, such as --model.decoder.dim 128; {LISTED}"
        )
