"""Variants of an ablation, from overlays and from combinations of them."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from glob import glob
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from lightning_xt.commands.ablation.study_plan import BASE, ConfigText, Variant
from lightning_xt.commands.catalogue.merging import join_lists, merge, names_parts
from lightning_xt.commands.options.config_files import read_config
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.system.messages import UserError
from lightning_xt.system.shipped_configs import LISTED, explain_missing_config, find_config, list_configs

JOINED = " + "
OWNERS = {"decoder": Decoder, "encoder": Encoder}
"""Classes whose defaults count where the options of two overlays are joined."""


def read_variants(names: Sequence[str], size: int) -> tuple[Variant, ...]:
    """Read overlays, and combine them.

    Args:
        names: files, or names of shipped ones, or patterns of such names.
        size: most overlays in a combination; 1 = only single ones.

    Raises:
        UserError: an overlay does not exist, is not a config, or has the name of another.
    """
    files: dict[str, Path] = {}
    for file in _list_files(names):
        if file.stem == BASE:
            raise UserError(f"ablate --variants {file}: {BASE} is the name of the base; rename the file")
        if JOINED in file.stem:
            raise UserError(f"ablate --variants {file}: '{JOINED}' joins the names of a combination; rename the file")
        if (other := files.setdefault(file.stem, file)) != file:
            raise UserError(
                f"ablate --variants: {other} and {file} are two overlays of one name, {file.stem}, by which rows are "
                "named; rename one"
            )
    singles = [Variant(name, read_text(file).text) for name, file in files.items()]
    if not 1 <= size <= max(1, len(singles)):
        raise UserError(f"ablate --combine is {size}; it must be from 1 to the number of overlays, {len(singles)}")
    return (*singles, *(_combine(group) for n in range(2, size + 1) for group in combinations(singles, n)))


def read_probes(names: Sequence[str]) -> tuple[ConfigText, ...]:
    """Read the configs of probes; UserError if one is not a config, or has the name of another."""
    files: dict[str, Path] = {}
    for file in _list_files(names):
        if (other := files.setdefault(file.stem, file)) != file:
            raise UserError(f"ablate --probes: {other} and {file} are two probes of one name, {file.stem}; rename one")
    return tuple(map(read_text, files.values()))


def read_text(file: Path) -> ConfigText:
    """Read a config; UserError if it is not one."""
    if not file.is_file():
        raise UserError(explain_missing_config(str(file)))
    read_config(file)
    return ConfigText(str(file), file.read_text(encoding="utf-8"))


def _list_files(names: Sequence[str]) -> Iterator[Path]:
    """Yield the files of names and patterns; those of the current folder come before shipped ones, as for -c."""
    for name in names:
        if not any(each in name for each in "*?["):
            yield find_config(name)
            continue
        pattern = name.removeprefix("configs/")
        shipped = (known for known in list_configs() if fnmatch(known, pattern))
        found = sorted(map(Path, glob(name))) or [find_config(known) for known in shipped]
        if not found:
            raise UserError(f"ablate: {name} matches no file here and no shipped config; check it ({LISTED})")
        yield from found


def _combine(group: Sequence[Variant]) -> Variant:
    """Return the combination of several overlays, as one overlay."""
    name, parts = JOINED.join(each.name for each in group), tuple(each.name for each in group)
    options = [yaml.safe_load(each.text) for each in group]
    joined: dict[str, Any] = {}
    for each in options:
        joined = _join(joined, each)
    kept = list(_list_leaves(joined))
    error = None
    if lost := sorted({leaf for each in options for leaf in _list_leaves(each) if leaf not in kept}):
        error = f"{' and '.join(parts)} choose the same option: there is no room for {' and '.join(lost)}"
    elif joined in options:
        error = f"{' and '.join(parts)} together are only {parts[options.index(joined)]}"
    text = f"# {name}.\n{yaml.safe_dump(joined, sort_keys=False)}"
    return Variant(name, text, parts, error)


def _join(first: Mapping[str, Any], second: Mapping[str, Any], owner: type | None = None) -> dict[str, Any]:
    """Return options with others on top of them; those of a network are joined as `merge` does."""
    if owner is not None:
        return merge(first, second, owner)
    joined = dict(first)
    for name, value in second.items():
        before = joined.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = _join(before, value, OWNERS.get(name))
        elif isinstance(before, list) and isinstance(value, list):
            value = join_lists(before, value)
        joined[name] = value
    return joined


def _list_leaves(options: Any, name: str = "") -> Iterator[str]:
    """Yield the names of classes and the values of other options, each value with its name."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _list_leaves(value, key)
    elif isinstance(options, list) and names_parts(options):
        for value in options:
            yield from _list_leaves(value, name)
    elif isinstance(options, str):
        yield options.rpartition(".")[2]
    else:
        yield f"{name} {options}"
