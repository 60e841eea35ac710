"""Tables of the comparison with x-transformers: options that give the same numbers, and options that do not.

Usage: python docs/parity_tables.py     writes the tables again; the site always has today's
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from introspection import ROOT

PAGE = ROOT / "docs/coming-from-x-transformers.md"
ROWS = ROOT / "tests/parity"
BEGIN, END = "<!-- parity: python docs/parity_tables.py -->", "<!-- end of the comparison -->"
THEIRS = ("layers", "wrapper", "top", "both", "enc", "dec")
"""Keys of a row that hold options of x-transformers; the others hold ours."""
SKIPPED = ("given", "caches", "zeros")


def write_tables() -> str:
    """Write the table of each file of rows, and that of the differences."""
    lines = [BEGIN]
    for title, file in (("decoders", "decoders.yaml"), ("encoder-decoders", "pairs.yaml")):
        rows = _read(file)
        lines += [f"\n### Equal {title}\n", f"{len(rows)} rows.\n"]
        lines += ["| x-transformers | lightning-xt |", "|---|---|", *map(_write_row, rows.values())]
    lines += ["\n### Different numbers\n", "| x-transformers | lightning-xt | reason |", "|---|---|---|"]
    lines += [
        f"| {each['options']} | {each['here']} | {each['reason']} |" for each in _read("differences.yaml").values()
    ]
    return "\n".join([*lines, "", END])


def _read(file: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROWS / file).read_text("utf-8"))
    return found


def _write_row(row: Mapping[str, Any]) -> str:
    prefixes = {"enc": "enc_: ", "dec": "dec_: ", "both": "enc_ and dec_: "}
    theirs = [f"{prefixes.get(name, '')}`{row[name]}`" for name in THEIRS if name in row]
    ours = [
        f"`{each}`" for name, value in row.items() if name not in (*THEIRS, *SKIPPED) for each in _dump(name, value)
    ]
    return f"| {', '.join(theirs) or 'nothing else'} | {', '.join(ours) or 'nothing else'} |"


def _dump(name: str, value: Mapping[str, Any]) -> Iterable[str]:
    """Write options as YAML in one line each; those of a network or the model stand by themselves."""
    own = value if name in ("decoder", "sides", "model") else {name: value}
    for option, each in own.items():
        yield yaml.safe_dump({option: each}, default_flow_style=True, sort_keys=False, width=10**6).strip()[1:-1]


def fill(page: str) -> str:
    """Return the text of the page with today's tables."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: write_tables(), page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
