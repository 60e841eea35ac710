"""Answers and errors of a real engine over HTTP."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scripted_engine import Client, make_server
from served_models import make_completer, make_translator

from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.server.served_model import ServedModel

pytestmark = pytest.mark.usefixtures("no_shape_checks")
TINY: dict[str, Any] = {"model": "lm", "prompt": "abc", "max_tokens": 2}


@pytest.fixture
def served() -> Iterator[tuple[Client, Engine, dict[str, Any]]]:
    """Client of a server with an engine of a language model and an encoder-decoder, and their generators."""
    generators: dict[str, Any] = {"lm": make_completer(), "pairs": make_translator()}
    engine = Engine(generators, rows=4, tokens=64)
    engine.start()
    models = [ServedModel(name, generator, 64) for name, generator in generators.items()]
    yield make_server(engine, models), engine, generators
    engine.close()


def test_equal_prompts_of_a_request_are_completed_as_those_of_a_file(
    served: tuple[Client, Engine, dict[str, Any]],
) -> None:
    server, _, generators = served
    prompts, options = ["ab", "b", "ab", "ab"], GenerationOptions(max_new_tokens=8, seed=3)
    wanted = [each.completions[0].text for each in generators["lm"].complete(number_prompts(prompts), options)]
    body = {"model": "lm", "prompt": prompts, "max_tokens": 8, "seed": 3}
    choices = server.post("/v1/completions", body).json()["choices"]
    assert [each["text"] for each in choices] == wanted and len(set(wanted)) == 4
    sources, hot = ["3 4", "5", "3 4"], GenerationOptions(max_new_tokens=8, seed=3, temperature=2.0)
    wanted = [each.completions[0].text for each in generators["pairs"].complete(number_prompts(sources), hot)]
    body = {"model": "pairs", "source": sources, "max_tokens": 8, "seed": 3, "temperature": 2}
    found = server.post("/v1/translations", body).json()["translations"]
    assert [each["candidates"][0]["text"] for each in found] == wanted and wanted[0] != wanted[2]


def test_weights_that_are_not_finite_are_named(served: tuple[Client, Engine, dict[str, Any]]) -> None:
    server, _, generators = served
    torch.nn.init.constant_(generators["lm"].model.token_embedding.weight, math.nan)
    for more, sentence in (
        ({}, "the model's scores of the next token are not finite"),
        ({"echo": True, "logprobs": 1, "max_tokens": 0}, "the model's scores of the prompt are not finite"),
    ):
        found = server.post("/v1/completions", TINY | more)
        assert found.status_code == 500
        assert found.json()["error"]["message"].startswith(sentence)
    streamed = server.post("/v1/completions", TINY | {"stream": True}).text
    assert "the model's scores of the next token are not finite" in streamed and "[DONE]" not in streamed


def test_too_little_memory_is_named(
    served: tuple[Client, Engine, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, generators = served

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(generators["pairs"].network, "encode", fail)
    found = server.post("/v1/translations", {"model": "pairs", "source": "3 4"})
    assert found.status_code == 500
    assert found.json()["error"]["message"].startswith("there is not enough memory for the requests of this step")


def test_an_engine_whose_thread_has_ended_is_not_healthy(served: tuple[Client, Engine, dict[str, Any]]) -> None:
    server, engine, _ = served
    assert server.get("/health").json() == {"status": "ok", "models": ["lm", "pairs"]}
    engine.close()
    found = server.get("/health")
    assert (found.status_code, found.json()["status"]) == (503, "failed")
    assert server.post("/v1/completions", TINY).status_code == 503


def test_texts_that_are_too_long_have_the_code_of_openai(served: tuple[Client, Engine, dict[str, Any]]) -> None:
    _, engine, generators = served
    # The server knows no limit, the engine does.
    server = make_server(engine, [ServedModel(name, generator) for name, generator in generators.items()])
    for path, body, field in (
        ("/v1/completions", {"model": "lm", "prompt": "a" * 80}, "prompt"),
        ("/v1/completions", {"model": "lm", "prompt": "a" * 60, "max_tokens": 9}, "prompt"),
        (
            "/v1/completions",
            {"model": "lm", "prompt": "a" * 80, "echo": True, "logprobs": 1, "max_tokens": 0},
            "prompt",
        ),
        ("/v1/translations", {"model": "pairs", "source": "3 " * 80}, "source"),
    ):
        found = server.post(path, body)
        error = found.json()["error"]
        assert (found.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", field)
