"""Tests that check each call against the shapes of its annotations: every test of tensor code.

Generation and training use the same parts, at several times the cost, so only the first case of each of their tests
does; whole commands do not. Of the laws of variants, those marked `checks_shapes` do, which call every path of a part
between them: a checked call costs several times one that is not. `--all-shape-checks`, which `make test-slow` has,
checks everywhere.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

EACH = ("core", "nn", "models", "objectives")
LAWS = ("test_families.py", "test_encoder_families.py")
FIRST = ("generation", "inference", "training", "test_configs.py")
HERE = Path(__file__).parent


def choose(items: Iterable[pytest.Item], *, everywhere: bool = False) -> set[str]:
    """Return the ids of the tests that check shapes."""
    chosen, seen = set(), set()
    for item in items:
        room = item.path.relative_to(HERE).parts[0]
        test = (item.path, getattr(item, "originalname", item.name))
        marked = room in LAWS and item.get_closest_marker("checks_shapes") is not None
        if everywhere or marked or room in EACH or (room in FIRST and test not in seen):
            chosen.add(item.nodeid)
        seen.add(test)
    return chosen
