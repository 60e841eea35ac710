"""Disks of the runs and of the data."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lightning_xt.checkpoints.runs import ROOT
from lightning_xt.commands.machine.finding import Finding, advise, fail
from lightning_xt.data.files.data_folder import data_folder

MOUNTS = Path("/proc/self/mounts")
SHARED_MEMORY = Path("/dev/shm")
NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "9p", "fuse.sshfs", "fuse.s3fs",
           "fuse.gcsfuse", "fuse.rclone")  # fmt: skip
"""Beginnings of the types of network file systems."""
LOW = 2e9
"""Bytes of a disk that are soon used up by checkpoints."""
LOW_SHARED = 256e6
"""Bytes of shared memory that few data workers use up; containers have 64 MB."""


def check_storage() -> Iterator[Finding]:
    """Yield findings about the folders of runs and data, and about shared memory."""
    yield _check_folder("runs", Path(ROOT), "--trainer.default_root_dir FOLDER puts runs elsewhere")
    remedy = "set the environment variable LIGHTNING_XT_DATA to a folder elsewhere"
    yield _check_folder("data", data_folder(), remedy, local=True)
    if SHARED_MEMORY.is_dir() and (size := shutil.disk_usage(SHARED_MEMORY).total) < LOW_SHARED:
        remedy = "keep --data.num_workers 0, or start the container with --shm-size=1g"
        yield advise("shared memory", f"{size / 1e6:.0f} MB", remedy)


def find_type(folder: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that holds a folder; "" if it is unknown."""
    found, longest = "", -1
    with suppress(OSError):
        for line in mounts.read_text().splitlines():
            _, place, kind, *_ = line.split(" ")
            place = place.replace("\\040", " ")
            if folder.is_relative_to(place) and len(place) >= longest:
                found, longest = kind, len(place)
    return found


def _check_folder(name: str, folder: Path, remedy: str, *, local: bool = False) -> Finding:
    """Return the finding about a folder, or about the one in which it would be created."""
    place = folder.absolute()
    existing = next(each for each in (place, *place.parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = f"{place}: {existing} cannot be written to"
        # Prepared data have another place, the user's cache.
        return advise(name, problem, remedy) if local else fail(name, problem, remedy)
    free, kind = shutil.disk_usage(existing).free, find_type(existing.resolve())
    networked = kind.startswith(NETWORK)
    text = f"{place}, {free / 1e9:.1f} GB free" + (f", on a network file system ({kind})" if networked else "")
    if free < LOW:
        return advise(name, text, f"make room; or {remedy}")
    if networked and local:
        return advise(name, text, f"data are read fastest from a local disk: {remedy}")
    return Finding(name, text)
