"""The table of what variants cost: its lines, and a reason for each that is slow."""

from pathlib import Path

from variant_costs import LIMIT, PAGE, read_reasons, read_rows, write_table

OVERLAYS = {file.stem for file in (Path(__file__).parents[1] / "configs" / "variants").glob("*.yaml")}
PLAIN = {"value": 0.2, "megabytes": 62.2, "dim": 256, "depth": 4, "heads": 4, "seq_len": 512, "batch_size": 1}
RESULT = {
    "machine": "CPU, 1 threads",
    "date": "2026-11-29",
    "versions": {"lightning-xt": "0.1.0", "torch": "2.13.0"},
    "rows": {
        "share_within_1.25x": {"value": 0.5, "within": 1, "of": 2},
        "plain": PLAIN,
        "slow": {"value": 2.0, "spread": [1.5, 2.5], "memory": 3.0},
        "quick": {"value": 1.25, "spread": [1.2, 1.3], "memory": 1.0},
    },
}


def test_the_table_shows_each_variant_and_the_fraction_of_quick_ones():
    table = write_table(RESULT, {"slow": "two passes", "quick": "not shown"})
    assert "1 of 2 overlays (50.0%) take at most 1.25 times" in table
    assert "The plain decoder takes 200 ms and 62 MB." in table
    assert read_rows(table) == {"quick": (1.25, ""), "slow": (2.0, "two passes")}


def test_every_slow_variant_of_the_page_has_a_reason():
    rows = read_rows(PAGE.read_text())
    assert len(rows) > 100
    assert rows.keys() <= OVERLAYS
    assert [name for name, (value, reason) in rows.items() if value > LIMIT and not reason] == []
    assert read_reasons().keys() <= OVERLAYS
