"""One language: package, configs, pages, benchmarks and tests use the field's words; docstrings name their subject.

`python tests/test_vocabulary.py` prints what is refused, with its place; a folder as an argument limits it.
"""

import ast
import io
import itertools
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

PHRASES = {
    # Invented terms, with the field's.
    r"what was read\b|what is fed": "prefix, tokens",
    r"\bshares? of\b|\b(?:a|the|which|what|each) share\b|\bmin_share|\bdecay_share": "fraction, shard",
    r"\bborders?\b": "boundary",
    r"\b(?:go|goes|going|gone|went) on\b": "resume, continue",
    r"\bbeside\b": "besides, next to",
    r"\banew\b": "again",
    r"\b(?:left|weights|file|options?|part|class|words?) alone\b": "only",
    r"\b(?:leave|leaves|leaving|left) (?:it |them |a bad node )?(?:out|away)\b": "skip, omit",
    r"\b[Tt](?:ells?|old|elling)\b": "report, print, raise; distinguish",
    r"\blearnt\b": "learned",
    r"\bmend(?:s|ed|ing)?\b": "repair, fix",
    r"\bof (?:one's own|yours|its own|their own|ours)\b|\bnone of ours\b": "custom, your own",
    r"\bno good\b": "invalid, malformed",
    r"\bso many\b|\bas many words\b": "n, num_",
    r"\bguess(?:es|ed|ing)?\b": "draft",
    r"\bmemory of (?:this|a|the|one|each|several) (?:call|readers|model)": "cache",
    r"\blikeliest\b": "most likely",
    # Negation by a noun.
    r"(?<!here )\b(?:is|are|was|were|be) no (?!longer|more\b|less\b|later\b|effect)": "is not",
    r"(?<!here )\b(?:is|are|was|were) none\b|\bnone is\b|\bnone are\b": "is not",
    r"\bno finite\b|\bno matter of\b|\bno news\b": "is not",
    r"\bwhere there (?:is|are|was|were) (?:none|no)\b": "if there is none",
    # Values are named, not described.
    r"^\s+\w+: what\b": "the noun",
    r"\bshar(?:e|es|ed|ing) out\b": "shard",
    # Old spellings of options.
    r"--length\b|--sampling\.length|--model\.decoded\b": "--max_new_tokens, --model.val_decode_pairs",
}
"""Refused phrases as patterns, with their replacements."""
WITHIN = {r"\bwords?\b": (("generation", "models", "nn", "objectives", "inference"), "token, vocabulary")}
"""Phrases that only some folders of the package refuse: elsewhere the user's words are meant."""

NAMES = {
    *("Answering", "Answerer", "Answer", "Answered", "Decoding", "Continuer", "Writing", "Piece", "Choices", "Drawn"),
    *("Sampling", "Remembering", "Asked", "Shown", "Slots", "Rows", "RawWeights", "Pairs", "Tokenized", "Epsilon"),
    *("asked", "answered", "hear", "settle", "of_a_step", "row_of", "whole", "whole_like", "share_of", "share_out"),
    *(
        "left_out",
        "poisoned",
        "keep_unbegun",
        "ended_together",
        "is_loss",
        "step_borders",
        "own_contents",
        "check_nulls",
    ),
    *("way_to", "ways_out", "own_randomness", "can", "pays_alone", "pays_in_blocks", "attend_alone", "bend"),
    *(
        "_take_leave",
        "_speaks",
        "predictions",
        "translations",
        "writing",
        "remembering",
        "showing",
        "slots",
        "skipping",
    ),
    *("companions", "nulls", "evaluating", "hashes", "words", "answers"),
}
"""Old names of classes, functions and files."""

OPENINGS = re.compile(
    r"(?:What|Whether|Where|How|Which|Who|Whose|When|Why|It|Its|This|That|Those|Such|The same|All that|As)\b"
)
"""First words of a docstring that hide its subject."""

BASELINE: dict[str, int] = {}
"""Findings that each folder may still have. Numbers only go down; an absent folder has none."""


QUOTING = ("test_vocabulary.py", "test_renamed.py", "renamed.py")
"""Tests that quote refused words."""


class Finding(NamedTuple):
    """A place with a refused phrase."""

    path: str
    line: int
    problem: str


def find_all(within: str = "") -> Iterator[Finding]:
    """Yield every finding of the package, the configs, the pages, the benchmarks and the tests."""
    folders = [ROOT / name for name in ("lightning_xt", "docs", "benchmarks", "tests")]
    files = {file for folder in folders for file in folder.rglob("*.py") if file.name not in QUOTING}
    for path in sorted(file for file in files if str(file.relative_to(ROOT)).startswith(within)):
        yield from find_in_code(path)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.*")]
    for path in sorted(file for file in pages if str(file.relative_to(ROOT)).startswith(within)):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield from find_phrases(path, number, line)


def find_in_code(path: Path) -> Iterator[Finding]:
    """Yield the findings of a Python file: in its strings, its comments, its docstrings and its names."""
    source = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            # A phrase may be broken over two lines.
            for number, line in enumerate(token.string.splitlines()):
                yield from find_phrases(path, token.start[0] + number, line)
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield from find_opening(path, node)
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield from find_phrases(path, node.lineno, node.name.replace("_", " "))
            if node.name in NAMES:
                yield Finding(place(path), node.lineno, f"{node.name} is an old name")
    for body in (node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)):
        for before, node in itertools.pairwise(body):
            described = isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(node, ast.Expr)
            if described and isinstance(node.value, ast.Constant) and OPENINGS.match(str(node.value.value)):
                yield Finding(place(path), node.lineno, f"opens as a question: {node.value.value[:60]}")
    if path.stem in NAMES:
        yield Finding(place(path), 1, f"{path.name} is an old name")


def find_opening(path: Path, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> Iterator[Finding]:
    """Yield a docstring that opens as a hidden question."""
    text = ast.get_docstring(node)
    if text and OPENINGS.match(text):
        yield Finding(place(path), getattr(node, "lineno", 1), f"opens as a question: {text.splitlines()[0][:60]}")


def find_phrases(path: Path, number: int, line: str) -> Iterator[Finding]:
    """Yield the refused phrases of a line."""
    room = Path(place(path)).parts[1] if path.suffix == ".py" else ""
    here = {pattern: better for pattern, (rooms, better) in WITHIN.items() if room in rooms}
    for pattern, better in (PHRASES | here).items():
        if found := re.search(pattern, line):
            yield Finding(place(path), number, f'"{found[0].strip()}": say {better}')


def place(path: Path) -> str:
    """Return a path from the root of the repository."""
    return str(path.relative_to(ROOT))


def folder(finding: Finding) -> str:
    """Return the folder by which findings are counted: a room of the package, or a top folder."""
    parts = Path(finding.path).parts
    return "/".join(parts[: 2 if parts[0] == "lightning_xt" else 1])


FINDINGS = list(find_all())
COUNTS = Counter(map(folder, FINDINGS))


@pytest.mark.parametrize("where", sorted({*COUNTS, *BASELINE, "README.md", "docs", "configs", "benchmarks", "tests"}))
def test_no_refused_phrase(where: str) -> None:
    found = [f"{f.path}:{f.line}: {f.problem}" for f in FINDINGS if folder(f) == where]
    assert len(found) <= BASELINE.get(where, 0), "\n".join(found)


@pytest.mark.parametrize(
    "line", ["which is none of ours", "a run that was left alone", "What a token costs", "tells it"]
)
def test_the_list_finds_what_it_should(line: str) -> None:
    assert list(find_phrases(ROOT / "README.md", 1, line)) or OPENINGS.match(line)


if __name__ == "__main__":
    limit = sys.argv[1] if len(sys.argv) > 1 else ""
    shown = [finding for finding in FINDINGS if finding.path.startswith(limit)]
    for finding in shown if limit else []:
        print(f"{finding.path}:{finding.line}: {finding.problem}")
    for name, count in sorted(Counter(map(folder, shown)).items()):
        print(f'    "{name}": {count},')
