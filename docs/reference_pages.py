"""Reference pages, written from the docstrings and signatures of the package.

No page lists a family or a variant by hand: importing the package is enough to find them.
"""

import ast
import inspect
import json
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docstring_parser
from introspection import ROOT, get_file, own_items

import lightning_xt
from lightning_xt.commands.catalogue.families import find_families, find_made, find_overlays, get_hints, list_members
from lightning_xt.system.discovery import init_parameters
from lightning_xt.system.docstrings import (
    COUNTERPARTS,
    PACKAGE,
    describe_options,
    find_counterparts,
    get_docstring,
    get_summary,
)

GROUPS = {
    "models": ("Networks", "models", "Networks in pure PyTorch. They need no Trainer and no Lightning."),
    "callbacks": ("Callbacks", "training/callbacks", "Callbacks of a run."),
    "loggers": ("Loggers", "training/loggers", "Loggers of a run."),
    "optimizers": (
        "Optimizers",
        "training/optim",
        "Optimizers besides those of `torch.optim`, which can be named too.",
    ),
}
"""Pages of classes that belong to no family: their heading, their folder and their first sentence."""


def family_page(folder: str, base: type, places: list[str]) -> str:
    """Write the page of a family: its contract, its slots in YAML, and every variant."""
    module = inspect.getmodule(base)
    lines = [f"# {title(folder)}", "", prose(inspect.getdoc(module) or ""), "", prose(inspect.getdoc(base) or ""), ""]
    if places:
        lines += [f"Slots: {', '.join(places)}.", ""]
    lines += ["| variant | | paper |", "|---|---|---|"]
    lines += [
        f"| [{v.__name__}](#{v.__name__.lower()}) | {cell(prose(get_summary(v)))} | {paper(v)} |"
        for v in list_members(base)
    ]
    lines += ["", f"Contract: `{base.__name__}` in `{get_file(base)}`.", "", *_contract(base)]
    for variant in list_members(base):
        lines += ["", *class_section(variant)]
    return "\n".join(lines) + "\n"


def class_section(cls: type) -> list[str]:
    """Write a class: its docstring, its options, the overlays that choose it, and its file."""
    parsed, (counterparts, remark) = get_docstring(cls), find_counterparts(cls)
    lines = [f"## {cls.__name__}", "", prose(parsed.short_description or ""), ""]
    if text := COUNTERPARTS.sub("", parsed.long_description or "").strip():
        lines += [prose(text), ""]
    if counterparts:
        names = ", ".join(f"`{name}`" for name in counterparts)
        lines += [f"In x-transformers: {names}{f'; {prose(remark)}' if remark else ''}.", ""]
    described = describe_options(cls)
    parameters = [p for n, p in init_parameters(cls).items() if n in described]
    # Options of a base come last.
    parameters.sort(key=lambda p: p.name not in inspect.signature(cls).parameters)
    if parameters:
        annotations = get_hints(cls)
        lines += ["| option | type | default | |", "|---|---|---|---|"]
        for p in parameters:
            kind, default = cell(spell_type(annotations.get(p.name, p.annotation))), cell(spell_default(p.default))
            lines.append(f"| `{p.name}` | {kind} | {default} | {cell(prose(described[p.name]))} |")
        lines.append("")
    lines += example(parsed)
    for name, text in find_overlays(cls).items():
        head, *rest = text.splitlines()
        lines += [f"`-c {name}`: {prose(head.lstrip('# '))}", "", "```yaml", *rest, "```", ""]
    return [*lines, f"Defined in `{get_file(cls)}`."]


def group_page(name: str) -> str:
    """Write the page of a group of classes that belong to no family."""
    heading, folder, lead = GROUPS[name]
    lines = [f"# {heading}", "", lead, ""]
    for path in sorted((ROOT / PACKAGE / folder).glob("*.py")):
        # A file is named for its class; what else it holds serves that class.
        for item in own_items(path):
            if inspect.isclass(item) and item.__name__.lower() == path.stem.replace("_", ""):
                lines += [*class_section(item), ""]
    return "\n".join(lines)


def python_page() -> str:
    """Write the page of the names that `lightning_xt` itself offers, variants of families aside."""
    lines = [
        "# Python names",
        "",
        "Names that `lightning_xt` itself offers besides the classes of the other pages.",
        "",
    ]
    bases = tuple(find_families().values())
    for name in lightning_xt.__all__:
        item = getattr(lightning_xt, name)
        shown = docstring_parser.parse(inspect.getdoc(item) or "").examples
        if inspect.isclass(item) and not issubclass(item, bases) and shown:
            *section, defined = class_section(item)
            lines += [*section, *_contract(item), "", defined, ""]
        elif inspect.isfunction(item):
            lines += [*function_section(item), ""]
    return "\n".join(lines) + "\n"


def function_section(function: Callable[..., Any]) -> list[str]:
    """Write a function: its signature and its docstring."""
    parsed = docstring_parser.parse(inspect.getdoc(function) or "")
    lines = [f"## {function.__name__}", "", prose(parsed.short_description or ""), ""]
    if parsed.long_description:
        lines += [prose(parsed.long_description), ""]
    if parsed.params:
        lines += ["| argument | |", "|---|---|"]
        lines += [f"| `{p.arg_name}` | {cell(prose(p.description or ''))} |" for p in parsed.params] + [""]
    if parsed.returns and parsed.returns.description:
        lines += [f"Returns: {prose(parsed.returns.description)}", ""]
    lines += example(parsed)
    return [*lines, f"Defined in `{get_file(function)}`."]


def example(parsed: docstring_parser.Docstring) -> list[str]:
    """Write the examples of a docstring."""
    return [line for each in parsed.examples for line in ("```pycon", each.description or "", "```", "")]


def tree_page() -> str:
    """Write the tree of files: each with the first line of its docstring."""
    lines = ["# The tree of files", "", f"Files of `{PACKAGE}/`, each with the first line of its docstring.", ""]
    for path in sorted((ROOT / PACKAGE).rglob("*.py"), key=_in_tree_order):
        parts = path.relative_to(ROOT / PACKAGE).parts
        if path.name == "__init__.py":
            heading = f"{'##' if len(parts) < 3 else '###'} `{'/'.join(parts[:-1])}/`" if len(parts) > 1 else ""
            lines += ["", heading, "", "| | |", "|---|---|"]
        else:
            lines.append(f"| `{path.name}` | {cell(file_summary(path))} |")
    return "\n".join(lines) + "\n"


def file_summary(path: Path) -> str:
    """Return the first sentence of a module's docstring, else of its first class or function.

    Raises:
        ValueError: nothing in the file is documented.
    """
    parsed = ast.parse(path.read_text())
    own = [node for node in parsed.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    texts = [ast.get_docstring(parsed), *(ast.get_docstring(node) for node in own if not node.name.startswith("_"))]
    text = next((text for text in texts if text), None)
    if text is None:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring")
    return prose(docstring_parser.parse(text).short_description or "")


def _in_tree_order(path: Path) -> tuple[Any, ...]:
    parts = path.relative_to(ROOT).parts
    return tuple(parts[:-1]), path.name != "__init__.py", path.name


def title(folder: str) -> str:
    """Return a heading for a folder's name: `rope_scalings` is "Rope scalings"."""
    return folder.replace("_", " ").capitalize()


def paper(cls: type) -> str:
    """Return a link to the first paper that a class's docstring names, "" if there is none."""
    text = inspect.getdoc(cls) or ""
    found = re.search(r"([^\n:(.]*(?:al\.,)?[^\n:(.]*(?:19|20)\d\d)\b[^\n]*?(https?://[^\s)]+?)[.,;)]*(?:\s|$)", text)
    return f"[{cell(prose(found[1].strip()))}]({found[2]})" if found else ""


def prose(text: str) -> str:
    """Return a docstring's text as Markdown: links become links, and other signs are escaped."""
    parts = re.split(r"(`[^`]*`|https?://\S+?(?=[.,;:)]?(?:\s|$)))", text)
    for number, part in enumerate(parts):
        if part.startswith("http"):
            parts[number] = f"<{part}>"
        elif not part.startswith("`"):
            parts[number] = re.sub(r"([*_])", r"\\\1", part.replace("&", "&amp;").replace("<", "&lt;"))
    return "".join(parts)


def cell(text: str) -> str:
    """Return text that fits a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def spell_type(hint: Any) -> str:
    """Return a type as a reader of YAML wants it: a slot is the family it takes."""
    made = list(find_made(hint))
    if made:
        names = " or ".join(f"[{m.__name__}]({link})" if (link := _link(m)) else f"`{m.__name__}`" for m in made)
        listed = "list of " if "Sequence" in str(hint) else ""
        return listed + names + (" or null" if type(None) in typing.get_args(hint) else "")
    return f"`{_spell(hint)}`"


def _spell(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_spell, args))
    if origin is typing.Literal:
        return " or ".join(map(str, args))
    if hint in (None, type(None)):
        return "null"
    name = getattr(origin or hint, "__name__", str(hint))
    return name + (f"[{', '.join(_spell(a) for a in args if not isinstance(a, list))}]" if args else "")


def spell_default(value: Any) -> str:
    """Return a default as YAML writes it."""
    if value is inspect.Parameter.empty:
        return "required"
    if inspect.isclass(value):
        return f"`{value.__name__}`"
    if isinstance(value, bool) or value is None or value == "":
        return f"`{json.dumps(value)}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _link(made: type) -> str | None:
    for folder, base in find_families().items():
        if made is base:
            return f"{folder}.md"
    return None


def _contract(cls: type) -> list[str]:
    """List the documented methods of a class: for a family, those that a variant may write."""
    lines = []
    classes = [each for each in cls.__mro__ if each.__module__.startswith(PACKAGE)]
    foreign = {name for each in cls.__mro__ if each not in classes for name in vars(each)} - {"forward", "__call__"}
    for name, method in {n: m for each in reversed(classes) for n, m in vars(each).items()}.items():
        function = method.__func__ if isinstance(method, classmethod) else method
        private = name.startswith("_") and name != "__call__"
        if private or name in foreign or not inspect.isfunction(function):
            continue
        first = docstring_parser.parse(inspect.cleandoc(function.__doc__ or "")).short_description
        needed = " (required)" if getattr(function, "__isabstractmethod__", False) else ""
        names = ", ".join(p for p in inspect.signature(function).parameters if p not in ("self", "cls"))
        if first or needed or name in ("forward", "__call__"):
            lines.append(f"- `{name}({names})`{needed}" + (f": {prose(first)}" if first else ""))
    return lines
