"""Every option of x-transformers has one line in the docs, and what docstrings and lines name exists."""

import re

from option_map import PAGE, fill, find_classes, join_attention, type_option, write_table

import lightning_xt
from lightning_xt.commands.catalogue.families import find_families
from lightning_xt.commands.catalogue.variant_list import list_variants
from lightning_xt.commands.x_transformers.reference_options import read_texts
from lightning_xt.system.docstrings import find_counterparts

OPTIONS = read_texts()
TYPED = {type_option(owner, option) for owner, options in OPTIONS.items() for option in options}
NAMES = {*lightning_xt.__all__, *(base.__name__ for base in find_families().values()), "Contrastive"}


def test_docstrings_name_options_that_exist():
    named = {(kind.__name__, option) for _, kind in list_variants() for option in find_counterparts(kind)[0]}
    assert {each for each in named if join_attention(each[1]) not in TYPED} == set()
    assert len(named) > 100


def test_every_option_of_the_reference_has_an_answer():
    assert sum(map(len, OPTIONS.values())) == 349
    said = find_classes()
    silent = [
        (owner, option)
        for owner, options in OPTIONS.items()
        for option, text in options.items()
        if not text and type_option(owner, option) not in said
    ]
    assert silent == []


def test_the_page_has_one_line_for_every_option():
    table = fill(PAGE.read_text()).partition("## Every option")[2]
    shown = {}
    for section in re.split(r"^### ", table, flags=re.M)[1:]:
        owner, _, lines = section.partition("\n")
        shown[owner] = re.findall(r"^\| `(\w+)` \| \S", lines, re.M)
    assert shown == {owner: [type_option(owner, option) for option in options] for owner, options in OPTIONS.items()}
    stored = PAGE.read_text().partition("## Every option")[2]
    assert re.findall(r"^\| `(\w+)` \| \S", stored, re.M) == re.findall(r"^\| `(\w+)` \| \S", table, re.M)


def test_every_class_that_the_tables_name_exists():
    for text in (write_table(), PAGE.read_text().partition("## Every option")[2]):
        rows = [line.split(" | ", 1)[1] for line in text.splitlines() if line.startswith("| `")]
        code = [each for row in rows for each in re.findall(r"`([^`]+)`", row)]
        named = {name for each in code for name in re.findall(r"\b[A-Z]\w+", each)}
        assert {name for name in named if name not in NAMES} <= {"True", "None"}
        assert len(named) > 80


def test_the_table_is_written_between_its_marks():
    page = fill("before\n<!-- table: python docs/option_map.py -->\nold\n<!-- end of the table -->\nafter\n")
    assert page.startswith("before\n<!-- table")
    assert page.endswith("-->\nafter\n")
    assert "old" not in page.splitlines()
    assert "| `alibi_pos_bias` | `position: ALiBi` |" in page
