"""JSON that every reader accepts."""

import json
import math
from pathlib import Path

import lightning_xt
from lightning_xt.system.json_text import to_json

PACKAGE = Path(lightning_xt.__file__).parent


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_cases_d13_numbers_that_json_lacks_become_null():
    value = {"a": [math.nan, 1.5, {"b": (-math.inf, math.inf)}], 3: Path("x"), "ü": None, "t": True}
    found = to_json(value)
    assert json.loads(found, parse_constant=refuse) == {
        "a": [None, 1.5, {"b": [None, None]}],
        "3": "x",
        "ü": None,
        "t": True,
    }
    assert "ü" in found and "\n" not in found
    assert to_json(["ü"], indent=2, ascii_only=True) == '[\n  "\\u00fc"\n]'


def test_cases_d13_all_json_of_the_package_is_written_there():
    writers = {path.name for path in PACKAGE.rglob("*.py") if "json.dump" in path.read_text(encoding="utf-8")}
    assert writers == {"json_text.py"}
