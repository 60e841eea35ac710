"""Server that forks a process for each command, so that Python, torch and the package are imported once.

Each line of standard input is a request, answered by a line: the id of a command's process, or the exit code of a
process that has ended. See `warm`.
"""

import faulthandler
import importlib
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import warnings
from typing import Any

import lightning_xt
import lightning_xt.__main__
from lightning_xt.system.discovery import import_submodules


def main() -> int:
    """Serve requests until standard input ends; in a forked process, run the command and return its exit code."""
    import_submodules(lightning_xt)
    filters = list(warnings.filters)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            sys.stdout.flush()
            answer = os.fork()
            if not answer:
                warnings.filters[:] = filters
                become(request)
                return importlib.import_module("lightning_xt.cli").main(last=True)
        print(answer, flush=True)
    return 0


def become(request: dict[str, Any]) -> None:
    """Turn this process into one that `python -m lightning_xt` has just started."""
    if request["session"]:
        os.setsid()
    for number, (name, flags) in enumerate(request["files"]):
        file = os.open(name, flags, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    # Python has put this file's folder first.
    sys.path[:1] = [request["folder"], *filter(None, request["environment"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [lightning_xt.__main__.__file__, *request["arguments"]]
    # Lightning starts further processes by this name.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("lightning_xt.__main__")
    random.seed()
    # Ignored in a shell's background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["environment"].get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    for number, size in request["limits"]:
        resource.setrlimit(number, (size, size))


if __name__ == "__main__":
    sys.exit(main())
