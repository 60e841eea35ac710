"""Threads and memory of this process, within the limits of its container."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lightning_xt.commands.machine.finding import Finding, advise
from lightning_xt.system.cores import ROOT, count_cores, count_usable_cores, list_groups, read_core_limit
from lightning_xt.system.processor_names import name_cpu, read_cpu

BF16 = ("amx_bf16", "avx512_bf16", "bf16")
"""Features of processors that multiply in bfloat16, as Linux names them on x86 and on ARM."""


def check_processor(threads: int, root: Path = ROOT) -> Iterator[Finding]:
    """Yield findings about the processor.

    Args:
        threads: number of threads that torch computes with.
        root: folder of /proc and /sys.
    """
    facts = read_cpu(root)
    cores, limit, usable = count_cores(), read_core_limit(root), count_usable_cores(root)
    limited = f", limited to {limit:g} by its container" if limit is not None and limit < cores else ""
    yield Finding("CPU", f"{name_cpu(root)}, {cores} cores{limited}")
    given = os.environ.get("OMP_NUM_THREADS")
    if threads > usable:
        yield advise(
            "threads", str(threads), f"set OMP_NUM_THREADS={usable}: more threads than cores slow each other down"
        )
    elif threads < usable and given is not None:
        yield advise("threads", f"{threads} (OMP_NUM_THREADS={given})", f"unset OMP_NUM_THREADS to use {usable} cores")
    else:
        yield Finding("threads", str(threads))
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    found = [name for name in BF16 if name in flags]
    yield Finding(
        "bfloat16 on the CPU", f"in hardware ({', '.join(found)})" if found else "not in hardware; train in float32"
    )
    yield from _check_memory(root)


def read_memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes of memory that a container grants; None if it sets no limit."""
    files = [folder / "memory.max" for folder in list_groups(root)]
    for file in [*files, root / "sys/fs/cgroup/memory/memory.limit_in_bytes"]:
        with suppress(OSError, ValueError):
            limit = int(file.read_text())
            # Without a limit the older kind has the largest number.
            return limit if limit < 2**60 else None
    return None


def _check_memory(root: Path) -> Iterator[Finding]:
    with suppress(OSError, ValueError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
        limit = read_memory_limit(root)
        granted = f", limited to {limit / 1e9:.1f} GB by its container" if limit and limit < sizes["MemTotal"] else ""
        yield Finding("memory", f"{sizes['MemTotal'] / 1e9:.1f} GB, {sizes['MemAvailable'] / 1e9:.1f} GB free{granted}")
