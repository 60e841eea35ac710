"""The documentation lists all rows, and every difference in it has a test."""

from pathlib import Path

import yaml
from parity_tables import PAGE, fill

HERE = Path(__file__).parent


def test_every_difference_has_a_test():
    differences = yaml.safe_load((HERE / "differences.yaml").read_text("utf-8"))
    tests = "".join(path.read_text("utf-8") for path in HERE.glob("test_*.py"))
    assert [name for name in differences if f"\ndef test_{name}(" not in tests] == []
    assert all(set(each) == {"options", "here", "reason"} for each in differences.values())


def test_the_page_has_all_rows():
    page = PAGE.read_text("utf-8")
    assert fill(page) == page
