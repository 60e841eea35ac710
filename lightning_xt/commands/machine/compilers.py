"""Compilers that torch.compile calls."""

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lightning_xt.commands.machine.finding import Finding, advise

NAMES = ("g++", "clang++", "c++")


def check_compilers(*, cuda: bool) -> Iterator[Finding]:
    """Yield findings about the compilers for the CPU, and with `cuda` for GPUs."""
    names = [name for name in (os.environ.get("CXX"), *NAMES) if name]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        remedy = "for --model.compile true install g++, such as by apt-get install g++ or xcode-select --install"
        yield advise("C++ compiler", "not found", remedy)
    elif not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        remedy = "for --model.compile true install the headers of Python, such as by apt-get install python3-dev"
        yield advise("C++ compiler", f"{found}, but without Python.h", remedy)
    else:
        yield Finding("C++ compiler", f"{found}, for --model.compile true")
    if cuda:
        if importlib.util.find_spec("triton") is None:
            yield advise("triton", "not installed", "for --model.compile true on a GPU: pip install triton")
        else:
            yield Finding("triton", "installed, for --model.compile true")
