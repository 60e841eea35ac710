"""Assemble the documentation: pages of this folder, pages of the repository, and reference pages.

Usage: python docs/build_site.py [FOLDER]     writes FOLDER/pages and FOLDER/zensical.toml (default: build/docs)

Pages link to each other and to files of the repository by relative paths, so that they can be read where they lie.
In the site, a link to the folder of a family leads to its reference page, and other paths outside the site are text.
"""

import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import option_map
import parity_tables
from architecture_list import architectures_page
from introspection import ROOT, find_places
from reference_pages import GROUPS, family_page, group_page, python_page, title, tree_page

from lightning_xt.cli import main
from lightning_xt.commands.catalogue.families import find_families

GUIDES = (
    "first-ten-minutes",
    "own-data",
    "command-line",
    "looking",
    "comparing",
    "ablation",
    "what-helps",
    "composing",
    "training-fast",
    "generating",
    "translating",
    "serving",
    "exchange",
    "finetuning",
    "debugging",
    "reliability",
    "lightning",
    "trust",
    "cluster",
)
PAGES = {
    "README.md": "index.md",
    **{f"docs/guides/{guide}.md": f"guides/{guide}.md" for guide in GUIDES},
    "docs/coming-from-x-transformers.md": "coming-from-x-transformers.md",
    "docs/interactions.md": "interactions.md",
    "docs/measurements.md": "measurements.md",
    "docs/architecture.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages in the order of the menu, with their places in the site."""
ROOMS = {
    "nn": "Parts of a network",
    "data": "Data",
    "generation": "Generation",
    "objectives": "Training",
    "training": "Training",
}
"""Headings of the menu for families by the folder of the package that they stand in."""
CONFIG = """[project]
site_name = "lightning-xt"
site_description = "Transformers from torch upwards, every idea a small class named in YAML"
docs_dir = "pages"
site_dir = "site"
use_directory_urls = false
extra_css = ["assets/site.css"]
nav = {nav}

[project.theme]
font = false
features = ["content.code.copy", "navigation.footer", "navigation.sections", "navigation.top", "toc.follow"]

[[project.theme.palette]]
media = "(prefers-color-scheme)"
toggle.icon = "lucide/sun-moon"
toggle.name = "Light"

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle.icon = "lucide/sun"
toggle.name = "Dark"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle.icon = "lucide/moon"
toggle.name = "As the system"

[project.plugins.offline]
"""


def build(folder: Path) -> None:
    """Write all pages and the configuration of the site."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    shutil.copytree(ROOT / "docs/assets", pages / "assets")
    for source, place in PAGES.items():
        text = parity_tables.fill(option_map.fill((ROOT / source).read_text()))
        write(pages / place, for_site(text, source))
    reference = write_reference(pages)
    guides = [place for place in PAGES.values() if place.startswith("guides/")]
    about = [place for place in PAGES.values() if place not in ("index.md", *guides)]
    nav = [{"Start": "index.md"}, {"Guides": guides}, {"Reference": reference}, {"About": about}]
    (folder / "zensical.toml").write_text(CONFIG.format(nav=toml(nav)))


def write_reference(pages: Path) -> list[object]:
    """Write a page for each family and each group; return their menu."""
    places, menu = find_places(), defaultdict(list)
    for folder, base in find_families().items():
        write(pages / f"reference/{folder}.md", family_page(folder, base, places.get(base, [])))
        room = base.__module__.split(".")[1]
        menu[ROOMS.get(room, title(room))].append({title(folder): f"reference/{folder}.md"})
    for group, (heading, *_) in GROUPS.items():
        write(pages / f"reference/{group}.md", group_page(group))
        room = "Parts of a network" if group == "models" else "Training"
        menu[room].insert(0, {heading: f"reference/{group}.md"})
    own = {
        "Commands": commands_page,
        "Configs": configs_page,
        "Architectures": architectures_page,
        "Python names": python_page,
        "The tree of files": tree_page,
    }
    for heading, page in own.items():
        write(pages / f"reference/{slug(heading)}.md", page())
    return [*({heading: f"reference/{slug(heading)}.md"} for heading in own), *({key: menu[key]} for key in menu)]


def for_site(text: str, source: str) -> str:
    """Return a page with its links and fences as the site needs them."""
    here, place = Path(source).parent, PAGES[source]

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        path, _, anchor = target.partition("#")
        if target.startswith(("http", "#")):
            return found[0]
        file = os.path.normpath(here / path)
        family = Path(file).name if (ROOT / file / "base.py").is_file() else None
        if file.startswith("docs/assets/"):
            there = file.removeprefix("docs/")
        elif family in find_families():
            there = f"reference/{family}.md"
        elif file in PAGES:
            there = PAGES[file]
        else:
            return label
        return f"[{label}]({os.path.relpath(there, Path(place).parent)}{'#' + anchor if anchor else ''})"

    text = re.sub(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)", link, text)
    text = re.sub(r"!\[([^\]\n]*)\]\(([^)\s]+)\)", lambda found: "!" + link(found), text)
    return re.sub(r"^(```\w+) \w+$", r"\1", text, flags=re.M)


def commands_page() -> str:
    """Write the help of every command."""
    lines = [
        "# Commands",
        "",
        "Output of `--help`. Options of a class: `lightning-xt fit --model.help CLASS`; all options: `--help_all`.",
        "",
    ]
    lines += ["```text", _help([]), "```", ""]
    earlier: dict[str, set[str]] = {}
    for command in re.findall(r"^  (\w+) +\S", _help([]), re.M):
        # Without the usage, which names each option once more.
        _, _, text = _help([command]).partition("\n\n")
        options = set(re.findall(r"^  (--[\w.]+)", text, re.M))
        like = next((name for name, others in earlier.items() if len(options & others) > 0.8 * len(options)), None)
        lines += [
            f"## {command}",
            "",
            *(_difference(options, like, earlier[like]) if like else ["```text", text, "```"]),
            "",
        ]
        earlier[command] = options
    return "\n".join(lines)


def _difference(options: set[str], like: str, others: set[str]) -> list[str]:
    """Describe the options of a command by those of another."""
    missing, added = (", ".join(f"`{o}`" for o in sorted(each)) for each in (others - options, options - others))
    return [f"Takes the options of [{like}](#{like})" + (f", except {missing}" if missing else "") + "."] + (
        ["", f"It also takes {added}."] if added else []
    )


def _help(command: list[str]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*command, "--help"])
    if code != 0:
        raise RuntimeError(f"{command} has no help")
    # jsonargparse hides a backspace in it.
    return re.sub(r"[\x00-\x08\x0b-\x1f]", "", printed.getvalue()).strip()


def configs_page() -> str:
    """Write the first comment of every YAML file in `configs`."""
    lines = [
        "# Configs",
        "",
        "The shipped configs, each with its first line. Layer them with `-c`; the last one wins.",
        "",
    ]
    for folder in sorted(path for path in (ROOT / "configs").iterdir() if any(path.glob("*.yaml"))):
        lines += [f"## {title(folder.name)}", "", "| file | |", "|---|---|"]
        for file in sorted(folder.glob("*.yaml")):
            lines.append(f"| `{folder.name}/{file.name}` | {file.read_text().splitlines()[0].lstrip('# ')} |")
        lines.append("")
    return "\n".join(lines)


def slug(heading: str) -> str:
    """Return a file's name for a heading."""
    return heading.lower().replace(" ", "-")


def write(path: Path, text: str) -> None:
    """Write a page, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def toml(value: object) -> str:
    """Return nested lists, tables and strings as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


if __name__ == "__main__":
    os.environ |= {"COLUMNS": "92", "NO_COLOR": "1"}
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/docs")
