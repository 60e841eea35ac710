"""Patterns of names, as in a shell: `*` stands for any characters, dots included."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from lightning_xt.system.messages import find_close_matches


def match_names(option: str, patterns: Sequence[str], names: Iterable[str], what: str) -> set[str]:
    """Return the names that match a pattern.

    Args:
        option: option that has the patterns, such as "model.frozen".
        patterns: such as `*.to_qkv`, or a whole name.
        names: dotted names.
        what: noun for a name, such as "parameter".

    Raises:
        ValueError: a pattern matches none of the names; close ones are offered.
    """
    if isinstance(patterns, str):
        raise ValueError(f"{option} is the text {patterns!r}; give a list of patterns: [{patterns!r}]")
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        own = {name for name in names if fnmatchcase(name, pattern)}
        if not own:
            raise ValueError(f"{option} {pattern!r} matches no {what} of the network; {_offer(pattern, names)}")
        found |= own
    return found


def _offer(pattern: str, names: Sequence[str]) -> str:
    """Offer the patterns that are closest to one that matches nothing, else the ends of all names."""
    ends = list(dict.fromkeys(f"*.{'.'.join(name.rsplit('.', 2)[-2:])}" for name in names))
    last = list(dict.fromkeys(f"*.{name.rpartition('.')[2]}" for name in names))
    parts = dict.fromkeys(f"*{part}*" for name in names for part in name.split(".") if not part.isdecimal())
    if close := find_close_matches(pattern, [*names, *ends, *last, *parts]):
        return f"did you mean {' or '.join(close)}?"
    known = sorted(last if len(last) > 2 else ends)
    return f"there is {', '.join(known[:12])}" + (f", and {len(known) - 12} more" if len(known) > 12 else "")
