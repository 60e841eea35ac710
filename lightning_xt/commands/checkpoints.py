"""Which checkpoint and which run a command means."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_xt.checkpoints.checkpoint import check_contents, read_checkpoint
from lightning_xt.checkpoints.runs import checkpoint_file, checkpoint_of, newest_with, run_of
from lightning_xt.system.messages import UserError
from lightning_xt.training.callbacks.preemption import owed_in

WAY_OUT = "give a .ckpt file that fit has saved"


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a command works on.

    Args:
        runs: folder of all runs of the name.
        folder: the run that exists already. None = none does.
        checkpoint: file to go on from. None = none.
        start: file whose weights a new run starts from. None = none.
        step: optimizer steps that `fit` finds done in the checkpoint.
        notes: what the user should know.
    """

    runs: Path
    folder: Path | None = None
    checkpoint: Path | None = None
    start: Path | None = None
    step: int = 0
    notes: tuple[str, ...] = ()


def resolve(command: str, options: Any, configs: Sequence[Path], name: str | None) -> Resolved:
    """Finds the run and the checkpoint.

    Args:
        command: fit, validate, test or predict.
        options: the parsed options.
        configs: the config files, in their order.
        name: what --name was given, beside the config files.

    Raises:
        UserError: a checkpoint is asked for that is not there.
    """
    asked = options.ckpt_path
    own = run_of(configs[0]) if configs else None
    if own is not None and name in (None, own.absolute().parent.name):
        runs = own.parent
    else:
        own = None
        stem = configs[0].stem if configs else "default"
        runs = Path(options.trainer.default_root_dir) / (name or options.name or stem)
    if asked is None:
        if command != "fit":
            raise UserError(f"{command} needs weights: give --ckpt_path best, --ckpt_path last or --ckpt_path FILE")
        return Resolved(runs=runs, start=_start(options, command))
    if asked in ("best", "last"):
        folder = own or newest_with(asked, runs)
        if folder is None and command == "fit":
            note = f"--ckpt_path {asked}: no run in {runs} has one yet; starting a new run"
            return Resolved(runs=runs, start=_start(options, command), notes=(note,))
        checkpoint = checkpoint_file(folder or runs / "0", asked)
        if folder is None or not checkpoint.is_file():
            raise UserError(f"--ckpt_path {asked}: there is no {checkpoint}; train first, or name a checkpoint file")
    else:
        checkpoint = _file("--ckpt_path", asked)
        folder = run_of(checkpoint)
    step = _step_or_another(f"--ckpt_path {asked}", checkpoint)
    if command != "fit":
        return Resolved(runs=runs, folder=folder, checkpoint=checkpoint)
    used = f"--ckpt_path {asked}: going on from {checkpoint} at step {step}"
    if asked not in ("best", "last") and not (own and folder and own.resolve() == folder.resolve()):
        # Another config, another run: this one only starts from there.
        folder = None
    return Resolved(
        runs=runs if folder is None else folder.parent,
        folder=folder,
        checkpoint=checkpoint,
        step=step,
        notes=(used, *_notes(options, checkpoint, step)),
    )


def _step_or_another(asked: str, checkpoint: Path) -> int:
    """Optimizer steps behind a checkpoint.

    Raises:
        UserError: it cannot be used; the message names the newest of the same run that can.
    """
    try:
        return step_of(checkpoint)
    except (UserError, ValueError) as error:
        whole = {}
        for other in checkpoint.parent.glob("*.ckpt"):
            # Of a folder that is no run's, any other file may be of another model.
            if run_of(checkpoint) is not None and other != checkpoint:
                with suppress(UserError, ValueError):
                    whole[step_of(other)] = other
        newest = max(whole, default=None)
        if newest is None:
            raise UserError(f"{asked}: {error}") from error
        raise UserError(
            f"{asked}: {error}; the newest whole one of the run is at step {newest}: --ckpt_path {whole[newest]}"
        ) from error


def _notes(options: Any, checkpoint: Path, step: int) -> Iterator[str]:
    """What of the options a run that goes on has no use for."""
    for part in sorted(checkpoint.parent.glob(".*.ckpt.part")):
        yield f"{part} is what a process left that was stopped while it saved; it is not used"
    if options.init_from is not None:
        yield f"--init_from {options.init_from} is not used: the run goes on from {checkpoint}"
    if 0 < options.trainer.max_steps <= step and owed_in(read_checkpoint(checkpoint)) is None:
        yield (
            f"{checkpoint} is at step {step} and --trainer.max_steps is {options.trainer.max_steps}: nothing is left "
            "to train; give a larger number to go on"
        )


def _start(options: Any, command: str) -> Path | None:
    """The weights that a new run starts from."""
    return None if options.init_from is None or command != "fit" else _file("--init_from", options.init_from)


def step_of(checkpoint: Path) -> int:
    """Optimizer steps behind a checkpoint.

    Raises:
        ValueError: the file cannot be read.
        UserError: it is none of a run.
    """
    check_contents(checkpoint)
    content = read_checkpoint(checkpoint)
    for name in ("state_dict", "global_step"):
        if name not in content:
            raise UserError(f"{checkpoint} is no checkpoint of a run: it has no {name}; {WAY_OUT}")
    state, step = content["state_dict"], content["global_step"]
    if not isinstance(step, int) or step < 0:
        raise UserError(f"{checkpoint} is no checkpoint of a run: its global_step is {step!r}, no count; {WAY_OUT}")
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise UserError(f"{checkpoint} is no checkpoint of a run: its state_dict holds more than weights; {WAY_OUT}")
    return step


def with_config_of_run(args: list[str]) -> list[str]:
    """The arguments, with the config of the checkpoint's or of the weights' run where no config is named."""
    asked, start = option(args, "--ckpt_path"), option(args, "--init_from")
    if start is not None and asked not in (None, "best", "last"):
        raise UserError(f"--ckpt_path {asked} and --init_from {start} both say where the weights come from; give one")
    if start is not None and asked is not None and not config_files(args):
        raise UserError(
            f"--init_from {start} starts a run and --ckpt_path {asked} goes on with one; with both, give -c FILE or "
            "leave one of them away"
        )
    name = "--init_from" if asked in (None, "best", "last") else "--ckpt_path"
    asked = option(args, name)
    if asked is None or config_files(args):
        return args
    folder = run_of(_file(name, asked))
    # Before all others, which then override it.
    return args if folder is None else [args[0], "-c", str(folder / "config.yaml"), *args[1:]]


def config_files(args: Sequence[str]) -> list[Path]:
    """The files named by -c and --config, in their order."""
    found = []
    for number, arg in enumerate(args):
        if arg in ("-c", "--config") and number + 1 < len(args):
            found.append(Path(args[number + 1]))
        elif arg.startswith("--config="):
            found.append(Path(arg.partition("=")[2]))
    return found


def option(args: Sequence[str], name: str) -> str | None:
    """What an option was given last on the command line."""
    value = None
    for number, arg in enumerate(args):
        if arg == name and number + 1 < len(args):
            value = args[number + 1]
        elif arg.startswith(name + "="):
            value = arg.partition("=")[2]
    return value


def _file(name: str, asked: str) -> Path:
    try:
        return checkpoint_of(asked)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
