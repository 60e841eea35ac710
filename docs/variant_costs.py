"""The table of what each variant costs, in docs/measurements.md.

Usage: python benchmarks/variants.py > result.json && python docs/variant_costs.py result.json

Of several results, the rows of later ones replace those of earlier ones.

Reasons for what costs more than the limit stand in docs/variant_costs.yaml, by overlay.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PAGE = HERE / "measurements.md"
LIMIT = 1.25
BEGIN, END = "<!-- table: python docs/variant_costs.py -->", "<!-- end of the table -->"
"""Lines around the table."""


def write_table(result: dict[str, Any], reasons: dict[str, str]) -> str:
    """Write the table of a result of benchmarks/variants.py, the cheapest variant first."""
    rows = dict(result["rows"])
    plain = rows.pop("plain")
    rows.pop("share_within_1.25x")
    within = sum(row["value"] <= LIMIT for row in rows.values())
    threads = result["machine"].replace(" 1 threads", " one thread")
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items() if name != "x-transformers")
    lines = [
        BEGIN,
        "",
        f"{result['date']}, {threads}, {versions}; dim {plain['dim']}, {plain['depth']} layers, {plain['heads']} "
        f"heads, {plain['batch_size']} x {plain['seq_len']} tokens. The plain decoder takes "
        f"{1000 * plain['value']:.0f} ms and {plain['megabytes']:.0f} MB. {within} of {len(rows)} overlays "
        f"({within / len(rows):.1%}) take at most {LIMIT} times its time.",
        "",
        "| variant | time | lowest to highest | memory | reason for more than 1.25 |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items(), key=lambda each: each[1]["value"]):
        low, high = row["spread"]
        reason = reasons.get(name, "") if row["value"] > LIMIT else ""
        lines.append(f"| `{name}` | {row['value']:.2f} | {low:.2f} to {high:.2f} | {row['memory']:.2f} | {reason} |")
    return "\n".join([*lines, "", END])


def read_rows(page: str) -> dict[str, tuple[float, str]]:
    """Return the time and the reason of each variant in the table of a page."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    found = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|.*\| ([^|]*) \|$", table, re.M)
    return {name: (float(value), reason.strip()) for name, value, reason in found}


def read_reasons() -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load((HERE / "variant_costs.yaml").read_text("utf-8"))
    return found


if __name__ == "__main__":
    results = [json.loads(Path(each).read_text("utf-8").splitlines()[-1]) for each in sys.argv[1:]]
    all_rows = {name: row for each in results for name, row in each["rows"].items()}
    written = write_table(results[0] | {"rows": all_rows | {"plain": results[0]["rows"]["plain"]}}, read_reasons())
    page = PAGE.read_text("utf-8")
    PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: written, page, flags=re.S), "utf-8")
