"""Names of the processors that compute: results are the same to the bit on the same kind only."""

import platform
from contextlib import suppress
from pathlib import Path

import torch

from lightning_xt.system.cores import ROOT


def read_cpu(root: Path = ROOT) -> dict[str, str]:
    """Return the facts of Linux about the first processor; none elsewhere."""
    with suppress(OSError):
        block = (root / "proc/cpuinfo").read_text().partition("\n\n")[0]
        return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}
    return {}


def name_cpu(root: Path = ROOT) -> str:
    """Return the name of the processor."""
    return read_cpu(root).get("model name") or platform.processor() or platform.machine()


def name_processors(root: Path = ROOT) -> str:
    """Return the kind of the processor, with its family, model and stepping, and that of the first GPU."""
    facts = read_cpu(root)
    numbers = [facts[name] for name in ("cpu family", "model", "stepping") if name in facts]
    cpu = name_cpu(root) + (f" ({'/'.join(numbers)})" if numbers else "")
    return f"{cpu}, {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else cpu
