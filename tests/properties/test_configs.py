"""Options of any value: either built, or refused in one sentence with exit code 2."""

import contextlib
import io
import math
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import strategies as st
from properties.holds import holds
from tiny_run import TINY

from lightning_xt.cli import main
from lightning_xt.commands.errors.out_of_memory import explain_out_of_memory
from lightning_xt.commands.generation.generate_options import parse
from lightning_xt.commands.options.config_files import DEEPEST, MOST_VALUES, load_values
from lightning_xt.system.messages import UserError, explain_error
from lightning_xt.training.language_model import LanguageModel

WORDS = st.sampled_from(
    [
        "",
        "a",
        "null",
        "true",
        "TopK",
        "ALiBi",
        "AdamW",
        "LanguageModel",
        "class_path",
        "init_args",
        "dim",
        "os.system",
        "1e400",
    ]
)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.integers(-2, 3) | st.floats() | WORDS
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)


def dump(value: object) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf).removesuffix("...\n").strip()
    )


def require_sentence(error: Exception) -> None:
    """Raise an error again if we have no sentence for it, because the user would see its traceback."""
    if not explain_error(error):
        raise error


def print_config(args: list[str]) -> int:
    """Return the exit code of a command that prints its config; a mistake must give one sentence."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = main(args)
    error = errors.getvalue()
    if code:
        assert error.startswith("lightning-xt: error: ") and error.count("\n") == 1 and len(error) < 2000
    return code


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


OPTIONS = [
    "max_new_tokens",
    "temperature",
    "filters",
    "top_k",
    "top_p",
    "method",
    "stop",
    "seed",
    "weights",
    "amateur",
    "guidance",
]


@holds(option=st.sampled_from(OPTIONS), value=VALUES)
def test_any_value_of_any_option_of_generate(option: str, value: object) -> None:
    try:
        found = parse(["RUN", f"--{option}={dump(value)}"])
    except (UserError, ValueError) as error:
        require_sentence(error)
    else:
        assert found.run == "RUN"


SLOTS = ["dim", "depth", "dropout", "attention", "feedforward", "norm", "residual", "layout"]


@holds(option=st.sampled_from(SLOTS), value=VALUES)
def test_any_value_of_any_option_of_a_model(option: str, value: object) -> None:
    options = {"dim": 8, "depth": 1, "attention": {"heads": 2}}
    try:
        # Independent of this machine's memory: a larger one would be filled.
        with mock.patch("lightning_xt.system.free_memory.get_free_memory", return_value=1 << 30):
            made = LanguageModel.from_config({"decoder": {**options, option: value}})
    except MemoryError as error:
        if option != "dim" or not explain_out_of_memory(error, None, {}, None):
            raise
    except ValueError as error:
        require_sentence(error)
    else:
        assert made.decoder.vocab_size == 256


TRAINED = ["data", "model", "model.decoder", "model.optimizer", "trainer", "trainer.callbacks", "sample_text", "name"]


@holds(option=st.sampled_from(TRAINED), value=VALUES, default=5, many=200)
def test_any_value_of_any_option_of_fit(option: str, value: object) -> None:
    print_config(["fit", "-c", "tiny.yaml", f"--{option}={dump(value)}", "--print_config"])


def size(value: object) -> int:
    if isinstance(value, list):
        return 1 + sum(map(size, value))
    if isinstance(value, dict):
        return 1 + sum(size(key) + size(each) for key, each in value.items())
    return 1


@holds(value=VALUES)
def test_dumped_values_are_accepted(value: object) -> None:
    load_values(yaml.safe_dump(value, allow_unicode=True), "file")


@holds(widths=st.lists(st.integers(1, 9), min_size=1, max_size=9), mapping=st.booleans())
def test_anchors_are_counted_as_often_as_they_stand(widths: list[int], mapping: bool) -> None:
    """An anchor counts with all its values wherever it is used."""
    lines, values = ["a0: &a0 x"], 1
    total = 1 + 2
    for number, width in enumerate(widths, start=1):
        names = [f"k{key}: *a{number - 1}" if mapping else f"*a{number - 1}" for key in range(width)]
        lines.append(f"a{number}: &a{number} {'{' if mapping else '['}{', '.join(names)}{'}' if mapping else ']'}")
        values = 1 + width * (values + mapping)
        total += 1 + values
    text = "\n".join(lines)
    if total > MOST_VALUES:
        with pytest.raises(UserError, match="holds more than 100,000 values where its anchors are written out"):
            load_values(text, "file")
    else:
        load_values(text, "file")
        assert size(yaml.safe_load(text)) == total


@holds(depth=st.integers(1, 2 * DEEPEST), mapping=st.booleans(), flow=st.booleans())
def test_depth_is_counted(depth: int, mapping: bool, flow: bool) -> None:
    if flow:
        text = ("{a: " if mapping else "[") * depth + ("}" if mapping else "]") * depth
    else:
        text = "".join(f"{'  ' * level}{'a:' if mapping else '-'}\n" for level in range(depth))
    if depth > DEEPEST:
        with pytest.raises(UserError, match=f"more than {DEEPEST} lists and mappings are within each other"):
            load_values(text, "file")
    else:
        load_values(text, "file")


@holds(keys=st.lists(st.sampled_from("abcd"), max_size=5))
def test_keys_stand_once(keys: list[str]) -> None:
    text = "{" + ", ".join(f"{key}: [{{{key}: 1}}]" for key in keys) + "}"
    if len(set(keys)) < len(keys):
        with pytest.raises(UserError, match="stands twice in one mapping"):
            load_values(text, "file")
    else:
        load_values(text, "file")
