"""A finding of the checkup of a machine."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "advice", "error"]


@dataclass(frozen=True)
class Finding:
    """Fact about a machine.

    Args:
        name: subject of the fact.
        value: the fact.
        remedy: the way to improve it. None = nothing is to be improved.
        level: error if training cannot work, advice if something else could be better.
    """

    name: str
    value: str
    remedy: str | None = None
    level: Level = "ok"


def advise(name: str, value: str, remedy: str) -> Finding:
    """Return a finding that could be better."""
    return Finding(name, value, remedy, "advice")


def fail(name: str, value: str, remedy: str) -> Finding:
    """Return a finding because of which training cannot work."""
    return Finding(name, value, remedy, "error")
