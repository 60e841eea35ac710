"""Three functions of jsonargparse that take most of the time of a parse, faster and with the same results.

A parse looks for the option of a key tens of thousands of times, each time among all options of the parser, and copies
values as often, key by key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import Namespace

from lightning_xt.training.lightning_internals import _actions, _core, _namespace, _subcommands

PLAIN = frozenset({str, int, float, bool, type(None), type})
"""Types of values that a copy shares."""


class OptionIndex:
    """Index of the options of parsers: `find_action_and_subcommand` of jsonargparse."""

    def __init__(self) -> None:
        self._indices: dict[Any, tuple[list[Any], dict[str, list[Any]], list[Any]]] = {}

    def find(self, parser: Any, dest: str, exclude: Any = None) -> tuple[Any, str | None]:
        """Return the option of a key, and the subcommand that has it; None for what there is not."""
        by_name, commands = self._index(parser)
        for action in commands:
            parsers = action._name_parser_map
            if exclude is not None and isinstance(action, exclude):
                continue
            if dest in parsers:
                return action, None
            command, _, rest = dest.partition(".")
            if command in parsers:
                found, inner = self.find(parsers[command], rest, exclude)
                return found, command if inner is None else f"{command}.{inner}"
        weaker = None
        for action in by_name.get(dest, ()):
            if exclude is None or not isinstance(action, exclude):
                if not isinstance(action, (_actions._ActionConfigLoad, _actions.ActionFail)):
                    return action, None
                weaker = action
        return weaker, None

    def _index(self, parser: Any) -> tuple[dict[str, list[Any]], list[Any]]:
        """Return the options of a parser by each of their names, and those that have subcommands."""
        known = self._indices.get(parser)
        # Links of options replace them.
        if known is None or known[0] != parser._actions:
            by_name: dict[str, list[Any]] = {}
            used = _actions.filter_non_parsing_actions(list(parser._actions))
            for action in used:
                for name in {action.dest, *(each[2:] for each in action.option_strings if each.startswith("--"))}:
                    by_name.setdefault(name, []).append(action)
            commands = [each for each in used if isinstance(each, _subcommands.ActionSubCommands)]
            known = self._indices[parser] = list(parser._actions), by_name, commands
        return known[1], known[2]


def recreate_branches(data: Any, skip_keys: Any = None) -> Any:
    """Copy namespaces, dicts and lists in each other, without the keys to skip: `recreate_branches` of jsonargparse."""
    kind = type(data)
    if kind in PLAIN:
        return data
    if kind is Namespace or kind is dict:
        found: Any = Namespace() if kind is Namespace else {}
        # Keys of a namespace are in its dict as they were set.
        into, values = (vars(found), vars(data)) if kind is Namespace else (found, data)
        for key, value in values.items():
            if skip_keys is None or key not in skip_keys:
                into[key] = value if type(value) in PLAIN else recreate_branches(value, skip_keys)
        return found
    return ORIGINAL["recreate_branches"](data, skip_keys)


def parse_key(self: Namespace, key: Any) -> Any:
    """Return a key's last part, and the namespace and the key of its others: `Namespace._parse_key` of jsonargparse."""
    if type(key) is not str or not key or "." in key or " " in key:
        return ORIGINAL["_parse_key"](self, key)
    return _namespace.add_clash_mark(key), self, ""


ORIGINAL: Any = {
    "find_action_and_subcommand": _subcommands.find_action_and_subcommand,
    "recreate_branches": _namespace.recreate_branches,
    "_parse_key": Namespace._parse_key,
}


@contextmanager
def faster_parsing() -> Iterator[None]:
    """Have jsonargparse use these functions within the block."""
    places: Any = (
        (_subcommands, "find_action_and_subcommand"), (_core, "find_action_and_subcommand"),
        (_namespace, "recreate_branches"), (_core, "recreate_branches"), (Namespace, "_parse_key"),
    )  # fmt: skip
    if Namespace._parse_key is parse_key:
        yield
        return
    ours = {"find_action_and_subcommand": OptionIndex().find, "recreate_branches": recreate_branches}
    ours["_parse_key"] = parse_key
    for place, name in places:
        setattr(place, name, ours[name])
    try:
        yield
    finally:
        for place, name in places:
            setattr(place, name, ORIGINAL[name])
