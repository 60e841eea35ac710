"""Laws that the default tests check on some variants, and the slow tests on all.

The laws that every variant is held to by default need no more than a forward, one decoding and one backward. The others
follow from the same code of the caches, masks and engines, so a sample finds what breaks them: of each family at least
one variant, other ones for each law.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pytest

STRIDE = 4
"""Variants of a family for each that a law is checked on by default."""
Law = TypeVar("Law", bound=Callable[..., Any])


def choose(law: str, names: Iterable[str]) -> set[str]:
    """Choose the variants, by names such as `norm=RMSNorm`, that the default tests hold a law to."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.partition("=")[0] if "=" in name else "", []).append(name)
    first = zlib.crc32(law.encode())
    return {each for names in families.values() for each in names[first % min(STRIDE, len(names)) :: STRIDE]}


def sample(argument: str, values: Mapping[str, Any]) -> Callable[[Law], Law]:
    """Parametrize a law with values by name; those that the default tests skip are slow."""

    def decorate(law: Law) -> Law:
        chosen = choose(law.__name__, values)
        params = [
            pytest.param(value, id=name, marks=() if name in chosen else pytest.mark.slow)
            for name, value in values.items()
        ]
        return pytest.mark.parametrize(argument, params)(law)

    return decorate
