"""Files of the playground: complete, packaged, without outside resources, inline code or markup made of text."""

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "lightning_xt" / "server" / "playground"
FILES = sorted(path for path in PAGE.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"})
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
NAMESPACE = "http://www.w3.org/2000/svg"


class Tags(HTMLParser):
    """Collector of a page's tags, with their attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1][0] if self.tags else "", data))


@pytest.fixture
def page() -> Tags:
    tags = Tags()
    tags.feed((PAGE / "index.html").read_text())
    return tags


def name(path: Path) -> str:
    return path.name


def test_the_wheel_has_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # hatchling packs every file of the package that git does not ignore.
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["lightning_xt"]
    assert {"index.html", "playground.css", "playground.js", "icon.svg"} <= {path.name for path in FILES}
    assert sorted(PAGE.iterdir()) == FILES
    assert sum(path.stat().st_size for path in FILES) < 100_000


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_comes_from_elsewhere(path: Path) -> None:
    text = path.read_text().replace(NAMESPACE, "").replace('"data:"', "")  # the field of server-sent events
    assert re.findall(r"(?:https?:|data:|blob:|[\"'(]//)[^\s]*", text) == []
    assert "@import" not in text
    assert len(text.splitlines()) <= 300


def test_the_page_has_no_inline_code(page: Tags) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"style", "base", "iframe", "object"}
        assert [key for key in attributes if key == "style" or key.startswith("on")] == []
        assert not (attributes.get("href") or "").startswith("javascript:")
        assert tag != "script" or attributes["src"]
    assert [text for tag, text in page.texts if tag == "script" and text.strip()] == []


def test_every_named_file_exists(page: Tags) -> None:
    named = [value for _, attributes in page.tags for key, value in attributes.items() if key in {"src", "href"}]
    files = [value for value in named if value and not value.startswith("#") and value != "docs"]
    assert len(files) >= 5
    # `/` serves the page, `/playground/` its files.
    assert [value for value in files if not (PAGE.parent / value).is_file()] == []
    imported = [found for path in SCRIPTS for found in re.findall(r'from "\./(.+?)"', path.read_text())]
    assert len(imported) >= 5
    assert [found for found in imported if not (PAGE / found).is_file()] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_no_text_becomes_markup_or_code(path: Path) -> None:
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
    assert re.findall(rf"{markup}|\beval\(|new Function", path.read_text()) == []


def test_every_control_has_a_label(page: Tags) -> None:
    labelled = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    controls = [attributes for tag, attributes in page.tags if tag in {"input", "select", "textarea"}]
    assert len(controls) >= 3
    assert [control for control in controls if control["id"] not in labelled and "aria-label" not in control] == []


def test_every_used_element_is_in_the_page(page: Tags) -> None:
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    used = {found for path in SCRIPTS for found in re.findall(r'byId\("([\w-]+)"\)', path.read_text())}
    assert len(used) >= 10
    assert used - ids == set()


def test_both_ways_into_the_dark_theme_agree() -> None:
    css = (PAGE / "playground.css").read_text()
    blocks = re.findall(r":root(?::not\(\[data-theme=\"light\"\]\)|\[data-theme=\"dark\"\]) \{(.+?)\}", css, re.DOTALL)
    assert len(blocks) == 2
    assert blocks[0].split() == blocks[1].split()


def find_colours(css: str, selector: str) -> dict[str, str]:
    block = css[css.index(selector) :].split("}")[0]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("selector", [":root {", ':root[data-theme="dark"]'], ids=["light", "dark"])
def test_text_can_be_read(selector: str) -> None:
    """Contrast of at least 4.5, level AA of the Web Content Accessibility Guidelines."""
    colours = find_colours((PAGE / "playground.css").read_text(), selector)
    pairs = [(text, ground) for text in ("ink", "muted") for ground in ("paper", "surface", "soft")]
    pairs += [("ink", ground) for ground in ("unlikely", "even", "likely")]
    pairs += [
        ("accent", "paper"),
        ("accent", "surface"),
        ("accent", "soft"),
        ("on-accent", "accent"),
        ("error", "error-soft"),
    ]
    for text, ground in pairs:
        lighter, darker = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)
