"""Properties: laws that hold for all drawn values."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from lightning_xt.system.messages import find_own_sentence

DEFAULT, MANY = 50, 1500
"""Numbers of examples in the default suite and in the slow suite."""
Found = TypeVar("Found")


def holds(*, default: int = DEFAULT, many: int = MANY, **drawn: SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Make a test of a function that asserts a property: with a few examples, and slowly with many.

    The same examples are drawn every time.

    Args:
        default: examples in the default suite.
        many: examples in the slow suite.
        drawn: strategy of each argument.
    """

    def decorate(check: Callable[..., None]) -> Any:
        @pytest.mark.parametrize("examples", [default, pytest.param(many, marks=pytest.mark.slow)])
        def test(examples: int) -> None:
            chosen = settings(
                max_examples=examples,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            )
            chosen(given(**drawn)(check))()

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate


def call_or_refuse(call: Callable[[], Found]) -> Found | None:
    """Return a call's result; None if it refuses with one of our sentences. Any other exception is a fault."""
    try:
        return call()
    except (ValueError, OSError) as error:
        sentence = find_own_sentence(error)
        if sentence is None:
            raise
        assert sentence and len(sentence) < 2000
        return None
