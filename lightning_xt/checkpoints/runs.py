"""Run folders, and the names by which a command finds a run.

    runs/<name>/<n>/   config.yaml  metrics.csv  events.*  samples.txt  checkpoints/{best,last,step-<s>}.ckpt

`runs` is the root; n counts the runs of a name from 0.
"""

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_xt.system.files import expand_home

ROOT = "runs"
"""Root of the runs by default."""
CHECKPOINTS = ("best", "last")
"""Kinds of checkpoints, the preferred one first."""
MARKS = ("name", "init_from", "keep_checkpoints", "standard")
"""Options that the config of every run states and that of another program does not."""


def find_checkpoint(run: str | Path, kinds: Sequence[str] = CHECKPOINTS) -> Path:
    """Find the checkpoint of a RUN: a run folder, a folder of runs (the newest with a checkpoint), or a file.

    Of a run's checkpoints the first of these kinds is preferred.

    Raises:
        FileNotFoundError: there is no such run, or it has no checkpoint.
        ValueError: it is a file, but not a checkpoint.
    """
    path = expand_home(run)
    if not is_valid_name(path):
        raise ValueError(f"{run} is not a run: no file can have this name; give runs/NAME, runs/NAME/0 or a .ckpt file")
    if path.is_file():
        if path.suffix != ".ckpt":
            raise ValueError(f"{run} is not a run: it is a file, but not a checkpoint (.ckpt); give a run folder")
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"{run} is not a run: there is no such folder or file; give runs/NAME, runs/NAME/0 or a .ckpt file"
        )
    for folder in (path, *reversed(list(list_runs(path)))):
        for kind in kinds:
            if (file := checkpoint_file(folder, kind)).is_file():
                return file
    raise FileNotFoundError(
        f"{run} is not a run: neither it nor a numbered folder in it has checkpoints/best.ckpt or "
        "checkpoints/last.ckpt; give runs/NAME, runs/NAME/0 or a .ckpt file"
    )


def is_valid_name(path: Path) -> bool:
    """Return False for a path that no file can have: a name is too long, or its links form a loop."""
    try:
        path.stat()
    except OSError as error:
        return error.errno not in (errno.ENAMETOOLONG, errno.ELOOP)
    return True


def checkpoint_file(folder: Path, kind: str) -> Path:
    """Return the path of a run's `best` or `last` checkpoint."""
    return folder / "checkpoints" / f"{kind}.ckpt"


def explain_restart(folder: Path | None, without: str = "run the command again") -> str:
    """Return the way out for a run that has stopped: to resume it, or another if it has no folder or saved nothing."""
    saved = folder is not None and checkpoint_file(folder, "last").is_file()
    return "resume with --ckpt_path last" if saved else without


def step_checkpoint(checkpoints: Path, step: int) -> Path:
    """Return the path for the checkpoint of an optimizer step, which a run keeps besides its best and its last."""
    return checkpoints / f"step-{step}.ckpt"


def step_checkpoints(checkpoints: Path) -> dict[int, Path]:
    """List the existing checkpoints of single steps by step, in order."""
    found = {path.stem.removeprefix("step-"): path for path in checkpoints.glob("step-*.ckpt")}
    return {int(step): found[step] for step in sorted((each for each in found if each.isdecimal()), key=int)}


def list_runs(runs: Path) -> Iterator[Path]:
    """List the runs of a name by number."""
    # Path.is_dir raises for a name that is too long.
    if os.path.isdir(runs):
        folders = [folder for folder in runs.iterdir() if folder.name.isdecimal() and folder.is_dir()]
        yield from sorted(folders, key=lambda folder: int(folder.name))


def find_run(file: str | Path) -> Path | None:
    """Return the run folder that holds a config or a checkpoint, whatever its name; None if it lies elsewhere.

    A link to such a file, or to the folder that holds it, belongs to the run of its target.
    """
    for path in (Path(file), Path(file).resolve()):
        if path.suffix != ".ckpt":
            folder = path.parent
        elif path.parent.name == "checkpoints":
            folder = path.parent.parent
        else:
            continue
        # A numbered folder without checkpoints is a run that has lost them.
        has_checkpoints = (folder / "checkpoints").is_dir() or folder.name.isdecimal()
        if not (folder / "config.yaml").is_file() or not has_checkpoints:
            continue
        if _is_of_run(folder / "config.yaml") and (path.suffix == ".ckpt" or _is_of_run(path)):
            return folder
    return None


def _is_of_run(config: Path) -> bool:
    """Return True for a config that a command has written for a run, with all options."""
    try:
        keys = {line.partition(":")[0] for line in config.read_text(encoding="utf-8").splitlines()}
    except (OSError, UnicodeDecodeError):
        return False
    return keys.issuperset(MARKS)


def find_run_config(run: Path) -> Path | None:
    """Return the config of a run, or of the newest run of a name that has one; None if there is none."""
    files = (folder / "config.yaml" for folder in (run, *reversed(list(list_runs(run)))))
    return next((file for file in files if file.is_file()), None)


def find_newest_run(kind: str, runs: Path) -> Path | None:
    """Return the newest run of a name that has a checkpoint of this kind."""
    found = [folder for folder in list_runs(runs) if checkpoint_file(folder, kind).is_file()]
    return found[-1] if found else None


def create_run(runs: Path) -> Path:
    """Make the folder of a name's next run, another for each process; ValueError if it cannot be made."""
    while True:
        last = max((int(folder.name) for folder in list_runs(runs)), default=-1)
        folder = runs / str(last + 1)
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if not folder.is_dir() or not runs.is_dir():
                raise ValueError(f"the run folder {folder} cannot be made: a file is in its way") from error
        except OSError as error:
            raise ValueError(
                f"the run folder {folder} cannot be made ({error.strerror}); choose another --name, or another "
                "place with --trainer.default_root_dir"
            ) from error
        else:
            return folder


def check_writable(run: Path) -> None:
    """Check that a run can be saved, in its own folder, before it is trained; ValueError if it cannot."""
    for name in ("checkpoints", ".lock"):
        if (run / name).is_symlink():
            raise ValueError(
                f"{run / name} is a link, and a run writes into its own folder only; replace it by what it points to, "
                f"or link the whole folder {run}"
            )
    try:
        (run / "checkpoints").mkdir(exist_ok=True)
        for folder in (run, run / "checkpoints"):
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0")
    except OSError as error:
        raise ValueError(
            f"the run folder {run} cannot be written ({error.strerror}); make it writable, or start a run elsewhere "
            "with --trainer.default_root_dir"
        ) from error
