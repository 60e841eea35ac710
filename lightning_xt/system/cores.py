"""Cores of this process, within the limits of its container."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")


def count_cores() -> int:
    """Return the number of cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def count_usable_cores(root: Path = ROOT) -> int:
    """Return the number of cores that this process may run on and whose time its container grants, at least 1."""
    cores, limit = count_cores(), read_core_limit(root)
    return cores if limit is None else max(1, min(cores, int(limit)))


def read_core_limit(root: Path = ROOT) -> float | None:
    """Return the number of cores whose time a container grants; None if it sets no limit.

    Args:
        root: folder of /proc and /sys.
    """
    for folder in list_groups(root):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            return int(quota) / int(period)
    with suppress(OSError, ValueError):
        folder = root / "sys/fs/cgroup/cpu"
        microseconds = int((folder / "cpu.cfs_quota_us").read_text())
        return microseconds / int((folder / "cpu.cfs_period_us").read_text()) if microseconds > 0 else None
    return None


def list_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, the innermost first."""
    lines = ""
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text()
    own = next((line.removeprefix("0::/") for line in lines.splitlines() if line.startswith("0::/")), "")
    folder = root / "sys/fs/cgroup" / own
    yield folder
    if own:
        yield root / "sys/fs/cgroup"
