"""Table of an ablation as one HTML page that sorts and filters, without outside resources."""

from html import escape

from lightning_xt.commands.ablation.study_results import NOISE, RATIOS, StudyResults, StudyRow
from lightning_xt.commands.ablation.study_tables import describe_study, format_row, list_columns

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a8a4a; --bad: #c0392b; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tr.base { font-weight: 600; }
tr.better td.verdict { color: var(--good); }
tr.worse td.verdict, tr.failed td.verdict { color: var(--bad); }
td.verdict { white-space: normal; min-width: 9rem; }
small { display: block; opacity: .7; white-space: normal; min-width: 14rem; }
input, select { font: inherit; margin: 0 .8rem .8rem 0; padding: .3rem; }
"""
SCRIPT = """
const body = document.querySelector("tbody"), rows = [...body.rows];
const text = document.querySelector("input"), verdict = document.querySelector("select");
function filter() {
  const wanted = text.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted)
    || (verdict.value !== "" && !row.classList.contains(verdict.value) && !row.classList.contains("base"));
}
text.addEventListener("input", filter);
verdict.addEventListener("change", filter);
document.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
  const head = button.parentElement, up = head.getAttribute("aria-sort") !== "ascending";
  document.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.cells[column].dataset.key;
  const compare = (a, b) => {
    // Cells without a value stay at the end.
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    return up ? order : -order;
  };
  rows.sort((a, b) => compare(key(a), key(b)));
  body.append(...rows);
}));
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
CLASSES = {"better": "better", "worse": "worse", NOISE: "noise", "the base": "base"}
"""Classes of rows by their verdicts; other rows say nothing yet, or have failed."""


def format_page(results: StudyResults, rows: list[StudyRow]) -> str:
    """Return the page."""
    columns = list_columns(results)
    heads = "".join(f'<th scope="col"><button>{escape(name)}</button></th>' for name in columns)
    lines = "\n".join(_format_row(row, results, columns) for row in rows)
    facts = "\n".join(f"<li>{escape(line)}</li>" for line in describe_study(results, rows))
    choices = "".join(f'<option value="{kind}">{escape(name)}</option>' for name, kind in CLASSES.items())
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Ablation</title>
<style>{STYLE}</style>
<h1>Ablation</h1>
<ul>
{facts}
</ul>
<label>Filter <input type="search" placeholder="name, summary, verdict"></label>
<label>Show <select><option value="">all</option>{choices}<option value="failed">others</option></select></label>
<div class="table"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
</table></div>
<script>{SCRIPT}</script>
</html>
"""


def _format_row(row: StudyRow, results: StudyResults, columns: list[str]) -> str:
    keys = _list_keys(row)
    cells = []
    for name, text in zip(columns, format_row(row, results), strict=True):
        key = keys.get(name, text)
        more = f"<small>{escape(row.summary)}</small>" if name == "variant" and row.summary else ""
        kind = ' class="verdict"' if name == "verdict" else ""
        cells.append(f'<td{kind} data-key="{escape("" if key is None else str(key))}">{escape(text)}{more}</td>')
    return f'<tr class="{CLASSES.get(row.verdict, "failed")}">{"".join(cells)}</tr>'


def _list_keys(row: StudyRow) -> dict[str, float | str | None]:
    """Return the values by which the columns of numbers are sorted."""
    mean = None if row.mean is None else row.mean.value
    return {
        "bits per byte": mean,
        "nats a token": mean,
        "against base": None if row.difference is None else row.difference.value,
        "sum of parts": row.parts_sum,
        "p": row.p,
        "by seconds": row.by_seconds,
        "by bytes": row.by_bytes,
        "learning rate": row.rate,
        **{name: row.ratios.get(name) for name in RATIOS},
    }
