"""Every difference that the documentation lists has a test."""

from pathlib import Path

import yaml

HERE = Path(__file__).parent


def test_every_difference_has_a_test():
    differences = yaml.safe_load((HERE / "differences.yaml").read_text("utf-8"))
    tests = "".join(path.read_text("utf-8") for path in HERE.glob("test_*.py"))
    assert [name for name in differences if f"\ndef test_{name}(" not in tests] == []
    assert all(set(each) == {"options", "here", "reason"} for each in differences.values())
