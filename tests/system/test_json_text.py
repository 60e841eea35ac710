"""JSON that every reader accepts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

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


def test_cases_d13_numbers_of_other_libraries_are_numbers():
    value = {
        "loss": torch.tensor(1.5),
        "nan": torch.tensor(math.nan),
        "steps": np.int64(3),
        "rows": np.array([[1, 2], [3, 4]]),
        "right": np.bool_(True),
        np.int64(7): {torch.float16},
        True: None,
        None: torch.device("cpu"),
    }
    assert json.loads(to_json(value), parse_constant=refuse) == {
        "loss": 1.5,
        "nan": None,
        "steps": 3,
        "rows": [[1, 2], [3, 4]],
        "right": True,
        "7": ["torch.float16"],
        "true": None,
        "null": "cpu",
    }


@pytest.mark.parametrize("value", [object(), b"x", 1j, {("a", 1): 2}])
def test_cases_d13_objects_that_are_not_data_are_refused(value):
    with pytest.raises(TypeError):
        to_json(value)


def test_cases_d13_all_json_of_the_package_is_written_there():
    writers = {path.name for path in PACKAGE.rglob("*.py") if "json.dump" in path.read_text(encoding="utf-8")}
    # The other one writes what the parser reads back.
    assert writers == {"json_text.py", "option_values.py"}
