"""The table of every option of x-transformers, in docs/coming-from-x-transformers.md.

Usage: python docs/option_map.py     writes the table again; the site always has today's

A class names its counterparts in its docstring (`In x-transformers: ...`). Other options stand in
lightning_xt/commands/x_transformers/options.yaml, whose reasons `lightning-xt from-xt` gives too.
"""

import re
from collections import defaultdict
from pathlib import Path

from lightning_xt.commands.catalogue.variant_list import list_variants
from lightning_xt.commands.x_transformers.reference_options import PREFIXES, read_texts
from lightning_xt.system.docstrings import find_counterparts

HERE = Path(__file__).parent
PAGE = HERE / "coming-from-x-transformers.md"
LISTS = ("embeddings", "links", "value_mods", "score_mods", "output_mods", "auxiliaries")
"""Slots that take a list."""
NORMS = {"attn_k_rmsnorm": "k_norm"} | dict.fromkeys(
    ("attn_qk_norm", "attn_qk_norm_groups", "attn_qk_norm_scale", "attn_qk_norm_dim_scale", "attn_qk_rmsnorm"),
    "qk_norm",
)
"""Slots of norms within attention, by option."""
BEGIN, END = "<!-- table: python docs/option_map.py -->", "<!-- end of the table -->"


def type_option(owner: str, option: str) -> str:
    """Return an option as a user of x-transformers types it."""
    return PREFIXES.get(owner, "") + option


def join_attention(option: str) -> str:
    """Return an option of cross-attention as that of any attention."""
    return re.sub("^cross_attn_", "attn_", option)


def find_classes() -> dict[str, list[str]]:
    """Return what the docstrings say about each option, as typed: the slot and the class, with its remark."""
    found: dict[str, list[str]] = defaultdict(list)
    for family, kind in list_variants():
        options, remark = find_counterparts(kind)
        for option in options:
            # A remark is about x-transformers unless it says otherwise.
            if remark and not re.search(r"\bt?here\b", remark):
                remark = f"there: {remark}"
            slot = NORMS.get(option, family) if family == "norm" else family
            name = f"[{kind.__name__}]" if family in LISTS else kind.__name__
            text = f"`{slot}: {name}`" + (f" ({remark})" if remark else "")
            found[join_attention(option)].append(text)
    return found


def write_table() -> str:
    """Write a table for each class of x-transformers."""
    classes, lines = find_classes(), [BEGIN]
    for owner, options in read_texts().items():
        lines += ["", f"### {owner}", "", "| x-transformers | lightning-xt |", "|---|---|"]
        for option, text in options.items():
            typed = type_option(owner, option)
            answers = [*classes.get(typed, []), *([text] if text else [])]
            lines.append(f"| `{typed}` | {'; '.join(answers)} |")
    return "\n".join([*lines, "", END])


def fill(page: str) -> str:
    """Return the text of the page with today's table."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: write_table(), page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
