"""Checkup of the machine and the installation."""

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lightning_xt.commands.machine.accelerators import check_accelerators
from lightning_xt.commands.machine.compilers import check_compilers
from lightning_xt.commands.machine.finding import Finding, fail
from lightning_xt.commands.machine.processors import check_processor
from lightning_xt.commands.machine.software import check_software
from lightning_xt.commands.machine.storage import check_storage
from lightning_xt.system.garbage import pause_garbage_collection
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import make_visible

WIDTH = 110
"""Characters of a line."""
PREFIXES = ("LIGHTNING_XT_", "LXT_")
"""Beginnings of the environment variables that the package reads."""
SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""Ends of those whose values are nobody else's."""


def print_checkup(*, as_json: bool) -> int:
    """Print all findings; return the exit code, 1 if training cannot work."""
    groups = collect_findings()
    works = all(each.level != "error" for found in groups.values() for each in found)
    if as_json:
        plain = {name: [asdict(each) for each in found] for name, found in groups.items()}
        print(to_json({"works": works, **plain}, indent=2, ascii_only=True))
    else:
        print(make_visible("\n".join(_format_lines(groups))))
        print(f"\n{_summarize(groups)}")
    return 0 if works else 1


def collect_findings() -> dict[str, list[Finding]]:
    """Return the findings by subject."""
    software = list(check_software())
    torch, problem = _import_torch()
    if torch is None:
        software.append(fail("torch", f"cannot be imported ({problem})", 'pip install --force-reinstall "torch"'))
    threads = 0 if torch is None else torch.get_num_threads()
    devices = [] if torch is None else list(check_accelerators(torch))
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "software": software,
        "devices": [*devices, *check_processor(threads)],
        "compilers": list(check_compilers(cuda=cuda)),
        "disks": list(check_storage()),
        "environment": list(_list_variables()),
    }


def _import_torch() -> tuple[Any, str]:
    """Import torch; return it, or None and the reason."""
    try:
        with pause_garbage_collection():
            import torch
    except (ImportError, OSError) as error:
        return None, " ".join(str(error).split())
    return torch, ""


def _list_variables() -> Iterator[Finding]:
    """Yield the environment variables that the package reads; of a secret, only that it is set."""
    for name, value in sorted(os.environ.items()):
        if name.startswith(PREFIXES):
            yield Finding(name, "is set" if name.endswith(SECRETS) else value)


def _format_lines(groups: Mapping[str, Sequence[Finding]]) -> Iterator[str]:
    """Yield the findings as aligned text."""
    indent = 4 + max(len(each.name) for found in groups.values() for each in found)
    for group, found in groups.items():
        if found:
            yield f"{group}:"
        for each in found:
            mark = {"ok": " ", "advice": "!", "error": "X"}[each.level]
            yield from _wrap(f"{mark} {each.name}".ljust(indent) + each.value, indent)
            if each.remedy is not None:
                yield from _wrap(" " * indent + f"-> {each.remedy}", indent + 3)


def _wrap(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _summarize(groups: Mapping[str, Sequence[Finding]]) -> str:
    levels = [each.level for found in groups.values() for each in found]
    errors, advice = levels.count("error"), levels.count("advice")
    if errors:
        return f"Training cannot work: {errors} finding{'s' if errors > 1 else ''} marked with X."
    if advice:
        return f"Training works; {advice} finding{'s' if advice > 1 else ''} marked with ! could be better."
    return "Training works."
