"""Choice of the run and the checkpoint that a command works on."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.runs import CHECKPOINTS, checkpoint_file, find_checkpoint, find_newest_run, find_run
from lightning_xt.checkpoints.saved_tokenizers import find_learned_tokenizer
from lightning_xt.commands.options.arguments import read_run_options
from lightning_xt.commands.options.config_files import read_config
from lightning_xt.system.imports import is_sub_config
from lightning_xt.system.messages import UserError
from lightning_xt.training.callbacks.preemption import read_owed_validation


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Run and checkpoint that a command works on.

    Args:
        runs: folder of all runs of the name.
        folder: the run that exists already. None = none does.
        checkpoint: the checkpoint to resume. None = none.
        start: the checkpoint whose weights a new run starts from. None = none.
        notes: messages for the user.
    """

    runs: Path
    folder: Path | None = None
    checkpoint: Checkpoint | None = None
    start: Checkpoint | None = None
    notes: tuple[str, ...] = ()


def resolve(command: str, options: Any, configs: Mapping[Path, dict[str, Any]], name: str | None) -> Resolved:
    """Find the run and the checkpoint of a command; UserError if the checkpoint that was named does not exist.

    The contents of the configs are in their order; `name` is the value of --name on the command line.
    """
    value = options.ckpt_path
    own = _find_own_run(configs, name)
    if own is not None and own.absolute().name.isdecimal():
        runs = own.parent
    else:
        stem = next((file.stem for file in configs), "default")
        runs = Path(options.trainer.default_root_dir) / (name or options.name or stem)
    if value is None:
        if command != "fit":
            raise UserError(
                f"{command} needs weights: give --ckpt_path best, --ckpt_path last or --ckpt_path FILE, or the run "
                f"alone: lightning-xt {command} RUN"
            )
        return Resolved(runs=runs, start=_start(options, command))
    if value in ("best", "last"):
        folder = own or find_newest_run(value, runs)
        if folder is None and command == "fit":
            note = f"--ckpt_path {value}: no run in {runs} has one yet; starting a new run"
            return Resolved(runs=runs, start=_start(options, command), notes=(note,))
        file = checkpoint_file(folder or runs / "0", value)
        if folder is None or not file.is_file():
            raise UserError(f"--ckpt_path {value}: there is no {file}; train first, or name a checkpoint file")
    else:
        file = _file("--ckpt_path", value)
        folder = find_run(file)
    checkpoint, step = _open(f"--ckpt_path {value}", file)
    if command != "fit":
        return Resolved(runs=runs, folder=folder, checkpoint=checkpoint)
    used = f"resuming from {file} at step {step}"
    if value not in ("best", "last") and not (own and folder and own.resolve() == folder.resolve()):
        # Another config, another run: this one only starts from there.
        folder = None
    return Resolved(
        runs=runs,
        folder=folder,
        checkpoint=checkpoint,
        notes=(used, *_notes(options, checkpoint, step)),
    )


def _find_own_run(configs: Mapping[Path, dict[str, Any]], name: str | None) -> Path | None:
    """Return the run that the first config belongs to; None if it is not a run's, or of another name."""
    first = next(iter(configs), None)
    own = None if first is None else find_run(first)
    if own is None or first is None:
        return None
    names = {None, configs[first].get("name")}
    if own.absolute().name.isdecimal():
        names.add(own.absolute().parent.name)
    return own if name in names else None


def _open(value: str, file: Path) -> tuple[Checkpoint, int]:
    """Open a run's checkpoint, and count the optimizer steps behind it; UserError names the newest that can be used."""
    try:
        return _open_whole(file)
    except ValueError as error:
        whole = {}
        for other in file.parent.glob("*.ckpt"):
            # Of a folder that is not a run's, any other file may be of another model.
            if find_run(file) is not None and other != file:
                with suppress(ValueError):
                    whole[_open_whole(other)[1]] = other
        newest = max(whole, default=None)
        if newest is None:
            raise UserError(f"{value}: {error}") from error
        raise UserError(
            f"{value}: {error}; the newest whole one of the run is at step {newest}: --ckpt_path "
            f"{quote(str(whole[newest]))}"
        ) from error


def _open_whole(file: Path) -> tuple[Checkpoint, int]:
    checkpoint = Checkpoint(file)
    # Raises if there are none.
    _ = checkpoint.weights
    return checkpoint, checkpoint.step


def _notes(options: Any, checkpoint: Checkpoint, step: int) -> Iterator[str]:
    """Yield a sentence for each option that a resumed run does not use."""
    for part in sorted(checkpoint.path.parent.glob(".*.ckpt.part")):
        yield f"{part} is what a process left that was stopped while it saved; it is not used"
    if options.init_from is not None:
        yield f"--init_from {options.init_from} is not used: the run resumes from {checkpoint.path}"
    if 0 < options.trainer.max_steps <= step and read_owed_validation(checkpoint.contents) is None:
        yield (
            f"{checkpoint.path} is at step {step} and --trainer.max_steps is {options.trainer.max_steps}: nothing is "
            "left to train; give a larger number to train on"
        )


def _start(options: Any, command: str) -> Checkpoint | None:
    """Open the checkpoint that a new run takes its weights from."""
    if options.init_from is None or command != "fit":
        return None
    return _open_whole(_file("--init_from", options.init_from))[0]


def replace_run(command: str, args: Sequence[str]) -> list[str]:
    """Return the options, with `-c` and `--ckpt_path` in place of a RUN, which stands first, and of --resume."""
    rest = [arg for arg in args if arg != "--resume"]
    resumes = len(rest) < len(args)
    if resumes and command != "fit":
        raise UserError(f"--resume trains a run further, which {command} does not; omit it")
    if not rest or rest[0].startswith("-"):
        if resumes:
            raise UserError("--resume needs a run: lightning-xt fit RUN --resume")
        return rest
    run, *rest = rest
    if is_sub_config(run):
        raise UserError(f"{command} {run}: a config is given with -c, as -c {quote(run)}")
    given = read_run_options(command, rest).ckpt_path
    if resumes and given is not None:
        raise UserError(f"--resume and --ckpt_path {given} both say where the run resumes; give one")
    # A run is trained further from where it stopped, and used at its best.
    file = _file(command, run, CHECKPOINTS[::-1] if resumes else CHECKPOINTS)
    if command == "fit" and not resumes:
        raise UserError(
            f"fit {quote(run)}: add --resume to train this run further, or give -c FILE --init_from {quote(run)} to "
            "start another from its weights"
        )
    if (folder := find_run(file)) is None:
        raise UserError(f"{command} {run}: no run's config.yaml is there; give -c FILE --ckpt_path {quote(str(file))}")
    checkpoint = ["--ckpt_path", str(file)] if given is None else []
    return ["-c", str(folder / "config.yaml"), *checkpoint, *rest]


def add_config_of_run(command: str, args: Sequence[str]) -> list[str]:
    """Return the options, with the config of the checkpoint's or the weights' run where no config names a model."""
    given = read_run_options(command, args)
    value, start = given.ckpt_path, given.init_from
    if start is not None and value not in (None, "best", "last"):
        raise UserError(f"--ckpt_path {value} and --init_from {start} both say where the weights come from; give one")
    if start is not None and value is not None and not given.config:
        raise UserError(
            f"--init_from {start} starts a run and --ckpt_path {value} resumes one; with both, give -c FILE or omit one"
        )
    name = "--init_from" if value in (None, "best", "last") else "--ckpt_path"
    run = start if value in (None, "best", "last") else value
    overlays = [read_config(file) for file in given.config if start is not None]
    if run is None or (given.config and not _are_overlays(overlays, args)):
        return list(args)
    folder = find_run(_file(name, run))
    if folder is None:
        return list(args)
    named = given.name or next((each["name"] for each in reversed(overlays) if "name" in each), None)
    # The overlay names the run, which would else be another one of the base.
    add = ["--name", named or given.config[0].stem] if given.config and given.name is None else []
    if start is not None and not _name_tokenizer(overlays, args):
        # Otherwise it would learn other sub-words from the new text.
        learned = find_learned_tokenizer(read_config(folder / "config.yaml"), folder)
        add += [] if learned is None else ["--data.tokenizer.file", str(learned)]
    # Before all others, which then override it.
    return ["-c", str(folder / "config.yaml"), *args, *add]


def _name_tokenizer(configs: Sequence[dict[str, Any]], args: Sequence[str]) -> bool:
    """Return whether configs or options choose the tokenizer of the data."""
    data = [each["data"] for each in configs if isinstance(each.get("data"), dict)]
    options = [*data, *(each["init_args"] for each in data if isinstance(each.get("init_args"), dict))]
    return any("tokenizer" in each for each in options) or any(arg.startswith("--data.tokenizer") for arg in args)


def _are_overlays(configs: Sequence[dict[str, Any]], args: Sequence[str]) -> bool:
    """Return whether neither configs, of which there are some, nor options name the class of a model."""
    models = [each.get("model") for each in configs]
    named = any(isinstance(each, str) or (isinstance(each, dict) and "class_path" in each) for each in models)
    return bool(configs) and not named and not any(re.match("--model(.class_path)?(=|$)", arg) for arg in args)


def _file(name: str, value: str, kinds: Sequence[str] = CHECKPOINTS) -> Path:
    try:
        return find_checkpoint(value, kinds)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
