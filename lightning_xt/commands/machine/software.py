"""Versions of Python and of libraries, against those that the package requires."""

import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from packaging.requirements import Requirement

import lightning_xt
from lightning_xt.commands.machine.finding import Finding, advise, fail

SHOWN = ("torch", "lightning", "jsonargparse")
"""Required libraries that are listed even if nothing is wrong with them."""
DEVELOPERS = ("dev", "docs", "bench")
"""Extras for work on the package itself."""


def check_software() -> Iterator[Finding]:
    """Yield findings about Python, the package, and the libraries that it requires or can use."""
    yield Finding("python", f"{sys.version.split()[0]} ({sys.executable})")
    yield Finding("lightning-xt", f"{lightning_xt.__version__} ({Path(lightning_xt.__file__).parent})")
    requirements = list_requirements()
    for each in requirements:
        if each.marker is None:
            yield from _check_required(each)
    extras: dict[str, list[Requirement]] = {}
    for each in requirements:
        if each.marker is not None:
            extras.setdefault(str(each.marker).partition('"')[2].rstrip('"'), []).append(each)
    for extra, needed in extras.items():
        if extra not in DEVELOPERS:
            yield _check_extra(extra, needed)


def list_requirements() -> list[Requirement]:
    """List what the package requires; those of an extra have a marker."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return [Requirement(each) for each in importlib.metadata.requires("lightning-xt") or ()]
    # A checkout that is not installed.
    import tomllib

    file = Path(lightning_xt.__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"] if file.is_file() else {}
    extras = project.get("optional-dependencies", {})
    optional = [f'{each} ; extra == "{extra}"' for extra, needed in extras.items() for each in needed]
    return [Requirement(each) for each in [*project.get("dependencies", []), *optional]]


def find_version(name: str) -> str | None:
    """Return the version of an installed library; None if it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_required(needed: Requirement) -> Iterator[Finding]:
    version = find_version(needed.name)
    if version is None:
        yield fail(needed.name, "not installed", f'pip install "{needed.name}{needed.specifier}"')
    elif not needed.specifier.contains(version, prereleases=True):
        wanted = f"{version}, but {needed.specifier} is needed"
        yield fail(needed.name, wanted, f'pip install "{needed.name}{needed.specifier}"')
    elif needed.name in SHOWN:
        yield Finding(needed.name, version)


def _check_extra(extra: str, needed: Sequence[Requirement]) -> Finding:
    """Return the finding about the libraries of an extra."""
    found = {each.name: find_version(each.name) for each in needed}
    old = [each for each in needed if (version := found[each.name]) and version not in each.specifier]
    missing = [name for name, version in found.items() if version is None]
    install = f'pip install "lightning-xt[{extra}]"'
    if missing:
        return Finding(f"extra {extra}", "not installed", f"if you want to use it: {install}")
    if old:
        return advise(
            f"extra {extra}", f"{old[0].name} {found[old[0].name]}, but {old[0].specifier} is needed", install
        )
    return Finding(f"extra {extra}", ", ".join(f"{name} {version}" for name, version in found.items()))
