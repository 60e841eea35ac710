"""schema: every config of the package is valid by the JSON Schema, and mistakes are not."""

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest
import yaml
from jsonschema import Draft7Validator

from lightning_xt.cli import main
from lightning_xt.commands.options.config_files import load_values
from lightning_xt.commands.options.option_help import list_class_options
from lightning_xt.commands.schemas.config_schema import build_schema
from lightning_xt.commands.schemas.option_types import describe_type
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.discovery import find_variants
from lightning_xt.system.shipped_configs import list_configs


@functools.cache
def make_validator(command: str = "fit") -> Draft7Validator:
    schema = build_schema(command)
    Draft7Validator.check_schema(schema)
    return Draft7Validator(json.loads(json.dumps(schema)))


def list_mistakes(text: str) -> list[str]:
    return [error.message for error in make_validator().iter_errors(load_values(text, "config"))]


def test_every_shipped_config_is_valid() -> None:
    for name, file in list_configs().items():
        assert list_mistakes(file.read_text(encoding="utf-8")) == [], name


def test_the_config_of_all_options_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "translation/copy.yaml", "--model.decoder.attention.position", "ALiBi",
                 "--print_config"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "position" in printed
    assert list_mistakes(printed) == []


@pytest.mark.parametrize(
    "text",
    [
        "modle: {}",
        "trainer: {max_step: 3}",
        "trainer: {max_steps: many}",
        "trainer: {precision: bf17}",
        "trainer: {callbacks+: [{class_path: EarlyStoping}]}",
        "sample_text: {generation: {max_new_token: 4}}",
        "data: {class_path: TextFiles, init_args: {order: lane}}",
        "model: {init_args: {decoder: {dimm: 3}}}",
        "model: {init_args: {decoder: {dim: big}}}",
        "model: {init_args: {decoder: {attention: {position: ALiBy}}}}",
        "model: {init_args: {decoder: {attention: {position: {class_path: lightning_xt.ALiBy}}}}}",
        "model: {init_args: {decoder: {attention: {position: {class_path: ALiBi, init_args: {biased_hed: 4}}}}}}",
        # An option of another class of the family.
        "model: {init_args: {decoder: {attention: {position: {class_path: ALiBi, init_args: {base: 4}}}}}}",
        "model: {init_args: {decoder: {attention: {value_mods: ValueResidual}}}}",
        "model: {init_args: {optimizer: {class_path: AdamW, init_args: {learning_rate: 0.1}}}}",
        "model: {class_path: LanguageModel, decoder: {}}",
    ],
)
def test_a_mistake_is_found(text: str) -> None:
    assert list_mistakes(text)


@pytest.mark.parametrize(
    "text",
    [
        "model: {init_args: {decoder: {attention: {position: null}}}}",
        "model: {init_args: {decoder: {attention: {position: my_parts.Mine}}}}",
        "model: {init_args: {decoder: {attention: {position: {class_path: my_parts.Mine, init_args: {a: 1}}}}}}",
        "model: {init_args: {decoder: {attention: {position: lightning_xt.ALiBi, value_mods+: ValueResidual}}}}",
        "model: my_model.yaml",
        "model.init_args.decoder.dim: 3",
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.Timer, init_args: {duration: {hours: 1}}}]}",
    ],
)
def test_other_spellings_are_valid(text: str) -> None:
    assert list_mistakes(text) == []


def test_every_option_of_a_variant_is_described() -> None:
    definitions = make_validator().schema["definitions"]
    own = [each for each in find_variants(Position) if each.__module__.startswith("lightning_xt.nn.positions.")]
    assert len(own) > 10
    for variant in own:
        found = definitions[f"{variant.__name__}.options"]
        assert found["description"].startswith(f"{variant.__name__}: ")
        assert set(list_class_options(variant, 1)) == {name for name in found["properties"] if name[-1] != "+"}
        assert all(each["description"] for each in found["properties"].values())
        assert variant.__name__ in definitions["Position.name"]["anyOf"][0]["enum"]
    assert definitions["Rotary.options"]["properties"]["base"]["default"] == 10000.0


def test_generate_has_another_config() -> None:
    validate = make_validator("generate").validate
    validate({"run": "runs/a", "temperature": 0.5, "prompt": ["a"], "method": {"class_path": "BeamSearch"}})
    assert not make_validator("generate").is_valid({"temprature": 0.5})
    assert not make_validator("generate").is_valid({"weights": "int7"})


def test_types_of_options() -> None:
    def describe(hint: object) -> dict[str, object]:
        return describe_type(hint, lambda kind, given: {"$ref": f"{kind.__name__} {given}"})

    assert describe(int | None) == {"type": ["integer", "null"]}
    assert describe(Literal["a", 1]) == {"enum": ["a", 1]}
    assert describe(tuple[int, float])["maxItems"] == 2
    assert describe(Sequence[str]) == {"type": "array", "items": {"type": "string"}}
    assert describe(dict[str, int]) == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert describe(Callable[[int], Position]) == {"$ref": "Position 1"}
    assert describe(Callable) == {"type": ["string", "object"]}
    assert describe(inspect.Parameter.empty) == {}


def test_it_is_written_to_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_xt.commands.schemas.schema_output.build_schema", lambda command: {"title": command})
    file = tmp_path / "schema.json"
    assert main(["schema", "--output", str(file), "--command", "predict"]) == 0
    assert capsys.readouterr().out.endswith(f"# yaml-language-server: $schema={file}\n")
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == {"title": "predict"}
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == {"title": "fit"}
    assert main(["schema", "--output", str(tmp_path)]) == 2
    assert "cannot be written (Is a directory); name another file" in capsys.readouterr().err
    assert main(["schema", "--output", str(tmp_path / "none/schema.json")]) == 2
    assert "cannot be written (No such file or directory); name another file" in capsys.readouterr().err
