"""Accelerators that torch can use, and those that it cannot."""

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from lightning_xt.commands.machine.finding import Finding, advise, fail

DRIVER = "/proc/driver/nvidia/version"
"""File of a loaded NVIDIA driver."""


def check_accelerators(torch: Any) -> Iterator[Finding]:
    """Yield findings about GPUs; without one the CPU trains."""
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _check_gpu(torch, number)
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "Apple's, by MPS; --trainer.precision 32-true is the safe one")
    elif os.path.exists(DRIVER) or shutil.which("nvidia-smi"):
        built = torch.version.cuda
        if built is None:
            remedy = "install a torch that is built for CUDA, as pytorch.org/get-started says"
        else:
            remedy = f"update the NVIDIA driver, or install a torch for an older CUDA than {built}; see nvidia-smi"
        yield advise("GPU", f"NVIDIA's, which this torch {torch.__version__} cannot use", remedy)
    else:
        yield Finding("GPU", "none; the CPU trains small models")


def _check_gpu(torch: Any, number: int) -> Finding:
    facts = torch.cuda.get_device_properties(number)
    capability = f"{facts.major}.{facts.minor}"
    text = f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, compute capability {capability}"
    built = torch.cuda.get_arch_list()
    architecture = f"sm_{facts.major}{facts.minor}"
    # A program for a smaller minor version runs too, and the driver compiles one that is in PTX for a newer GPU.
    fits = any(name.startswith(f"sm_{facts.major}") and name <= architecture for name in built)
    fits |= any(int(name[8:]) <= 10 * facts.major + facts.minor for name in built if re.fullmatch(r"compute_\d+", name))
    if built and torch.version.hip is None and not fits:
        remedy = f"install a torch that is built for {architecture}; this one is built for {', '.join(built)}"
        return fail(f"GPU {number}", text, remedy)
    precision = "bf16-mixed" if facts.major >= 8 or torch.version.hip is not None else "16-mixed"
    return Finding(f"GPU {number}", f"{text}, --trainer.precision {precision}")
