"""Whether config files are what a config can be, before they are read for what they say."""

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from lightning_xt.checkpoints.runs import list_runs
from lightning_xt.system.messages import UserError

MOST_BYTES = 8 << 20
"""Of a config; that of a run has some thousand."""
MOST_VALUES = 100_000
"""Values of a config where each anchor is written out as often as it is named."""
DEEPEST = 64
"""Lists and mappings within each other."""


def check_configs(files: Iterable[Path]) -> None:
    """Raises a UserError that names the file where one is no YAML, or no config; the parser would not say which."""
    for file in files:
        text = _text(file)
        if text is None:
            # The parser says that there is no such file.
            continue
        try:
            check_values(text, str(file))
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = f" in line {mark.line + 1}" if mark is not None else ""
            raise UserError(f"{file} is no YAML: {error.problem or error.context}{line}; mend it there") from error
        except (yaml.YAMLError, ValueError) as error:
            # A ValueError is a date, or a number in base 64, that is none.
            raise UserError(f"{file} is no YAML: {' '.join(str(error).split())}; mend it there") from error
        if content is not None and not isinstance(content, dict):
            kind = type(content).__name__
            raise UserError(f"{file} is no config: it holds a {kind}, not options such as 'trainer: {{max_steps: 20}}'")
        if not content:
            raise UserError(f"{file} is no config: it holds nothing; give options such as 'trainer: {{max_steps: 20}}'")
        for name in content:
            if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+]*", name):
                raise UserError(f"{file} is no config: its key {name!r} is no name of an option; begin as 'name: mine'")
        if isinstance(content.get("trainer"), list):
            raise UserError(
                f"{file}: --trainer is a list; it takes options by name, such as 'trainer: {{max_steps: 20}}'"
            )


def check_values(text: str, place: str) -> None:
    """Looks at a YAML text without making anything of it, which could fill memory from a kilobyte.

    Args:
        text: the YAML.
        place: what messages call it.

    Raises:
        UserError: it holds too much, too deep or itself, a key twice, or the character NUL.
        yaml.YAMLError: it is none.
    """
    _Walk(place).through(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@contextmanager
def checked_values(args: Sequence[str]) -> Iterator[None]:
    """Has the parser look at each YAML text with anchors before it makes anything of it.

    Such a text may be a value on the command line, or a file that an option or another config names.

    Args:
        args: the command line.
    """
    load = get_loader("yaml")

    def checked(text: str) -> Any:
        if "&" in text:
            named = (name for arg in args for name in (arg, arg.partition("=")[2]) if name.endswith((".yaml", ".yml")))
            files = (name for name in named if _text(Path(name)) == text)
            check_values(text, next(files, f"the value {text[:40]!r}..."))
        return load(text)

    set_loader("yaml", checked, (yaml.YAMLError,))
    try:
        yield
    finally:
        set_loader("yaml", load, (yaml.YAMLError,))


@dataclass
class _Open:
    """A list or a mapping whose end is yet to come.

    Args:
        anchor: its name for aliases. None = it has none.
        keys: those of a mapping so far. None = a list.
        values: what it holds so far, with all that is in it.
        is_key: whether a key of the mapping comes next.
    """

    anchor: str | None
    keys: set[Hashable] | None
    values: int = 1
    is_key: bool = field(default=True)


class _Walk:
    """Goes through the events of a YAML text, and counts."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.open: list[_Open] = []
        self.sizes: dict[str, int] = {}
        """Values of what each anchor stands for."""

    def through(self, events: Iterator[Any]) -> None:
        for event in events:
            if isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                ended = self.open.pop()
                self._add(ended.values, ended.anchor)
            elif isinstance(event, yaml.ScalarEvent):
                if "\0" in event.value:
                    raise UserError(
                        f"{self.place}: line {event.start_mark.line + 1} holds the character NUL, which no name of a "
                        "file may have; remove it"
                    )
                self._check_key(event)
                self._add(1, event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                if any(each.anchor == event.anchor for each in self.open):
                    raise UserError(f"{self.place}: the anchor {event.anchor!r} holds itself; write it out")
                # Where there is no such anchor, reading will say so.
                self._add(self.sizes.get(event.anchor, 1), None)

    def _begin(self, event: Any) -> None:
        if len(self.open) == DEEPEST:
            raise UserError(
                f"{self.place} is too deep: in line {event.start_mark.line + 1} more than {DEEPEST} lists and mappings "
                "are within each other; no option needs so many"
            )
        self.open.append(_Open(event.anchor, set() if isinstance(event, yaml.MappingStartEvent) else None))

    def _check_key(self, event: Any) -> None:
        inside = self.open[-1] if self.open else None
        if inside is None or inside.keys is None or not inside.is_key:
            return
        if event.value in inside.keys and event.value != "<<":
            raise UserError(
                f"{self.place}: the key {event.value!r} stands twice in one mapping, again in line "
                f"{event.start_mark.line + 1}; leave one away"
            )
        inside.keys.add(event.value)

    def _add(self, values: int, anchor: str | None) -> None:
        if anchor is not None:
            self.sizes[anchor] = values
        if not self.open:
            return
        inside = self.open[-1]
        inside.values += values
        inside.is_key = not inside.is_key
        if inside.values > MOST_VALUES:
            raise UserError(
                f"{self.place} holds more than {MOST_VALUES:,} values where its anchors are written out; a config has "
                "some hundred"
            )


def _text(file: Path) -> str | None:
    """What a file holds; None where there is none.

    Raises:
        UserError: it cannot be read as text.
    """
    try:
        if file.is_dir():
            raise UserError(f"{file} is a folder; give a config in it, such as {_config_in(file)}")
        if not file.exists() and not file.is_symlink():
            return None
        if not file.is_file():
            raise UserError(f"{file} is no file that can be read twice; save the config in a file first")
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file} has more than {MOST_BYTES:,} bytes, which no config has; give a config")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); make it readable, or give another") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error


def _config_in(folder: Path) -> Path:
    """The config a user may have meant: of the run, or of the newest run of the name."""
    runs = [folder, *reversed(list(list_runs(folder)))]
    found = [run / "config.yaml" for run in runs if (run / "config.yaml").is_file()]
    return found[0] if found else folder / "config.yaml"
