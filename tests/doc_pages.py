"""Pages of the documentation, cut into sections with their fences."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Section:
    """Part of a page under one heading of the second level.

    Args:
        page: its path from the root of the repository.
        heading: its heading; "" for what precedes the first one.
        text: its Markdown.
    """

    page: str
    heading: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.heading or 'start'}".replace(" ", "_")

    def fences(self, info: str) -> list[str]:
        """Return the fences that open with an info string."""
        found = re.findall(r"^```([^\n]*)\n(.*?)^```", self.text, re.M | re.S)
        return [text for opened, text in found if opened == info]

    def commands(self, *infos: str) -> list[tuple[str, list[str]]]:
        """Return each command of the fences with one of the info strings, and that string, in order."""
        found = []
        for info, text in re.findall(r"^```([^\n]*)\n(.*?)^```", self.text, re.M | re.S):
            lines = text.replace("\\\n", " ").splitlines() if info in infos else []
            found += [(info, words) for line in lines if (words := shlex.split(line, comments=True))]
        return found


def read_sections(page: Path) -> list[Section]:
    """Cut a page at its headings of the second level, outside of fences."""
    name, parts, fenced = str(page.relative_to(ROOT)), [["", ""]], False
    for line in page.read_text().splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            parts.append([line[3:].strip(), ""])
        parts[-1][1] += line
    return [Section(name, heading, text) for heading, text in parts]


SECTIONS = [section for page in PAGES for section in read_sections(page)]
