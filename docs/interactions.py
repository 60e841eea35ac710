"""The page of the pairs of variants that no model takes, docs/interactions.md.

Usage: python docs/interactions.py     builds a small model of every pair, in about a minute

Whether the pairs that are built keep every law is tested by tests/test_pairs.py.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "interactions.md"
sys.path.insert(0, str(HERE.parent / "tests"))

Pair = tuple[str, str]
"""Two variants, each as its slot and its class: `position=ALiBi`."""

HEAD = """\
# Interactions

Every part of a network can be combined with every other part, or a model refuses the two when it is built, by a
sentence that names both. `pytest -m slow tests/test_pairs.py` builds every pair in a small decoder, or where one of the
two serves encoders only, in an encoder or an encoder-decoder, and holds each to the laws: forward, backward, causality
by value and by gradient, decoding with a cache in random pieces, documents, padding. Parts of attention are tried in
the encoder, the decoder and the cross-attention of an encoder-decoder too.

`lightning-xt variants Latent ValueResidual` answers for one pair, with the sizes of a recipe.

`python docs/interactions.py` writes this page.
"""
BUILT, REFUSED = "## How many pairs are built", "## Which pairs are refused"


def write_page(built: Iterable[Pair], refused: dict[Pair, str]) -> str:
    """Write the page of the pairs that are built, and of those refused with the sentences of the models."""
    built = list(built)
    total = len(built) + len(refused)
    lines = [
        HEAD,
        BUILT,
        "",
        f"{len(built):,} of {total:,} pairs ({len(built) / total:.1%}) are built, {len(refused)} are refused.",
        "",
        "| slot | pairs with each other slot, and how many of them are built if not all |",
        "|---|---|",
        *_write_counts(built, refused),
        "",
        REFUSED,
        "",
        "| part | is refused next to | because |",
        "|---|---|---|",
        *_write_refusals(refused),
        "",
    ]
    return "\n".join(lines)


def _write_counts(built: Iterable[Pair], refused: Iterable[Pair]) -> list[str]:
    """Write a line for each slot."""
    taken, all_pairs = Counter[Pair](), Counter[Pair]()
    for pairs, counters in ((built, (taken, all_pairs)), (refused, (all_pairs,))):
        for one, other in pairs:
            for counter in counters:
                counter.update({(_slot(one), _slot(other)), (_slot(other), _slot(one))})
    found = defaultdict(list)
    for slot, other in sorted(all_pairs):
        of, number = all_pairs[slot, other], taken[slot, other]
        found[slot].append(f"`{other}` {of}" if number == of else f"`{other}` **{number} of {of}**")
    return [f"| `{slot}` | {', '.join(cells)} |" for slot, cells in found.items()]


def _write_refusals(refused: dict[Pair, str]) -> list[str]:
    """Write a line for each rule, which is a sentence with one of the two parts left open."""
    rules = [(part, other, _open(sentence, other)) for pair, sentence in refused.items() for part, other in _turn(pair)]
    often = Counter((part, rule) for part, _, rule in rules)
    lines = defaultdict[tuple[str, str], list[str]](list)
    for one, other in refused:
        part, partner, rule = max(
            ((part, partner, _open(refused[one, other], partner)) for part, partner in _turn((one, other))),
            key=lambda each: (often[each[0], each[2]], each[0]),
        )
        lines[part, rule].append(partner)
    return [
        f"| {_show(part)} | {', '.join(map(_show, partners))} | {rule} |" for (part, rule), partners in lines.items()
    ]


def read_refusals(page: str) -> dict[Pair, str]:
    """Return the refused pairs of a page, in both orders, and their sentences."""
    found: dict[Pair, str] = {}
    for part, partners, rule in re.findall(
        r"^\| (`[^|]+) \| (`[^|]+) \| ([^|]+) \|$", page.partition(REFUSED)[2], re.M
    ):
        (one,) = _read(part)
        for other in _read(partners):
            found |= dict.fromkeys(_turn((one, other)), rule.replace("...", other.partition("=")[2]))
    return found


def _slot(name: str) -> str:
    return name.partition("=")[0]


def _turn(pair: Pair) -> tuple[Pair, Pair]:
    return pair, (pair[1], pair[0])


def _show(name: str) -> str:
    return "`{}` {}".format(*name.split("="))


def _read(cell: str) -> list[str]:
    return ["=".join(each) for each in re.findall(r"`(\w+)` (\w+)", cell)]


def _open(sentence: str, name: str) -> str:
    """Return a sentence with dots for the class of a part."""
    return re.sub(rf"\b{name.partition('=')[2]}\b", "...", sentence)


if __name__ == "__main__":
    import lightning_xt
    from lightning_xt.system.discovery import import_submodules

    import_submodules(lightning_xt)
    from pair_results import find_refusals

    made, left = find_refusals()
    PAGE.write_text(write_page(made, left), "utf-8")
