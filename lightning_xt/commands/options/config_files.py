"""Config files: read and parsed once, and refused where they are not configs."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from lightning_xt.checkpoints.runs import find_run_config
from lightning_xt.checkpoints.saved_tokenizers import replace_missing_tokenizers
from lightning_xt.system.messages import UserError
from lightning_xt.training.lightning_internals import get_yaml_default_loader

MOST_BYTES = 8 << 20
"""Bytes of a config; that of a run has some thousand."""
MOST_VALUES = 100_000
"""Values of a config where each anchor is written out as often as it is named."""
SECTIONS = ("trainer", "model", "data", "sampling", "standard")
COMMANDS = ("fit", "validate", "test", "predict")
CLASS = ("class_path", "init_args")
DEEPEST = 64
"""Lists and mappings within each other."""


class ConfigLoader(get_yaml_default_loader()):  # type: ignore[misc]
    """YAML loader of jsonargparse that refuses a text whose values could fill memory, or are given twice."""

    place = ""
    """Name of the text in messages."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {}, ())
        return node

    def _count(self, node: yaml.Node, counts: dict[yaml.Node, int], inside: tuple[yaml.Node, ...]) -> int:
        """Return the number of values of a node, those of its anchors as often as they are named."""
        line = node.start_mark.line + 1
        if node in inside:
            raise UserError(f"{self.place}: the anchor in line {line} holds itself; write it out")
        if len(inside) == DEEPEST and isinstance(node, yaml.CollectionNode):
            raise UserError(
                f"{self.place} is too deep: in line {line} more than {DEEPEST} lists and mappings are within each "
                "other; no option needs that many"
            )
        if node in counts:
            return counts[node]
        total = 1
        for each in self._children(node):
            total += self._count(each, counts, (*inside, node))
            if total > MOST_VALUES:
                raise UserError(
                    f"{self.place} holds more than {MOST_VALUES:,} values where its anchors are written out; a config "
                    "has some hundred"
                )
        counts[node] = total
        return total

    def _children(self, node: yaml.Node) -> Iterator[yaml.Node]:
        """Yield the values of a list or a mapping, with its keys."""
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            raise UserError(
                f"{self.place}: line {node.start_mark.line + 1} holds the character NUL, which no name of a file may "
                "have; remove it"
            )
        if isinstance(node, yaml.SequenceNode):
            yield from node.value
        if isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in keys:
                        raise UserError(
                            f"{self.place}: the key {key.value!r} stands twice in one mapping, again in line "
                            f"{key.start_mark.line + 1}; remove one"
                        )
                    keys.add(key.value)
                yield from (key, value)


def load_values(text: str, place: str) -> Any:
    """Parse a YAML text; messages name it by its place.

    Raises:
        UserError: it holds too much, too deep or itself, a key twice, or the character NUL.
        yaml.YAMLError: it is not YAML.
    """
    loader = ConfigLoader(text)
    loader.place = place
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class ConfigFiles:
    """Config files of a command.

    Args:
        files: in their order.
        args: the command line, whose options may name more of them.

    Raises:
        UserError: one is not YAML, or not a config.
    """

    def __init__(self, files: Sequence[Path], args: Sequence[str]) -> None:
        self.files, self._args = list(files), args
        self.contents: dict[Path, dict[str, Any]] = {}
        self._parsed: dict[str, Any] = {}
        for file in self.files:
            # The parser says that there is no such file.
            if (text := _read(file)) is not None:
                self._parsed[text] = self.contents[file] = content = _parse(text, file)
                replace_missing_tokenizers(content, file.parent)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have the parser take the files as they are parsed, and parse other YAML texts by `ConfigLoader`.

        Such a text may be a value on the command line, or a file that an option or another config names.
        """
        load = get_loader("yaml")

        def load_guarded(text: str) -> Any:
            if text in self._parsed:
                return deepcopy(self._parsed[text])
            if "&" in text or ":" in text:
                load_values(text, self._describe(text))
            return load(text)

        set_loader("yaml", load_guarded, (yaml.YAMLError,))
        try:
            yield
        finally:
            set_loader("yaml", load, (yaml.YAMLError,))

    def _describe(self, text: str) -> str:
        values = (value for arg in self._args for value in (arg, arg.partition("=")[2]))
        files = (value for value in values if value.endswith((".yaml", ".yml")) and _read(Path(value)) == text)
        return next(files, f"the value {text[:40]!r}...")


def _parse(text: str, file: Path) -> dict[str, Any]:
    """Parse the text of a config; UserError if it is not YAML, or not a config."""
    try:
        content = load_values(text, str(file))
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem):
            raise UserError(f"{file} is too deep: {error.problem}; no option needs so much") from error
        mark = error.problem_mark
        line = f" in line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{file} is not YAML: {error.problem or error.context}{line}; repair it there") from error
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError is an invalid number in base 64.
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}; repair it there") from error
    if content is not None and not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"{file} is not a config: it holds a {kind}, not options such as 'trainer: {{max_steps: 20}}'")
    if not content:
        raise UserError(f"{file} is not a config: it is empty; give options such as 'trainer: {{max_steps: 20}}'")
    for name in content:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+]*", name):
            raise UserError(f"{file} is not a config: its key {name!r} is not an option; begin as 'name: mine'")
    if command := next((name for name in COMMANDS if isinstance(content.get(name), dict)), None):
        raise UserError(
            f"{file}: its options stand under {command}:, where only configs of several commands have them; remove "
            "that line, and move the others to the left"
        )
    _refuse_empty(content, str(file), SECTIONS)
    if isinstance(content.get("trainer"), list):
        raise UserError(f"{file}: --trainer is a list; it takes options by name, such as 'trainer: {{max_steps: 20}}'")
    return dict(content)


def _refuse_empty(content: Any, place: str, names: tuple[str, ...]) -> None:
    """Raise a UserError for a section of options, or a class and its options, with nothing in it."""
    for name, value in content.items() if isinstance(content, dict) else enumerate(content):
        if value is None and name in names:
            raise UserError(f"{place}: {name} is empty; give it a value, or remove it")
        if isinstance(value, (dict, list)):
            _refuse_empty(value, place, CLASS)


def _read(file: Path) -> str | None:
    """Return the text of a file, None if there is none; UserError if it cannot be read as text."""
    if str(file) == "-":
        raise UserError("-c -: a config is a file, by which its run is named; save it in one first")
    try:
        if file.is_dir():
            raise UserError(
                f"{file} is a folder; give a config in it, such as {find_run_config(file) or file / 'config.yaml'}"
            )
        if not file.exists() and not file.is_symlink():
            return None
        if not file.is_file():
            raise UserError(f"{file} is not a regular file; save the config in a file first")
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file} has more than {MOST_BYTES:,} bytes, which no config has; give a config")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); make it readable, or give another") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error


def read_config(file: Path) -> dict[str, Any]:
    """Return the contents of a config, empty if there is no such file; UserError if it is not a config."""
    text = _read(file)
    return {} if text is None else _parse(text, file)
