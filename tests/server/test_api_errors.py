"""Errors over HTTP: OpenAI's form, one sentence that names what is wrong, never a path or a traceback."""

import json
import threading
import tracemalloc
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from scripted_engine import ScriptedEngine, make_language_model, make_server

from lightning_xt.inference.serving.events import EngineClosedError, EngineFailedError, QueueFullError, StepError
from lightning_xt.inference.serving.job import Job
from lightning_xt.server.bodies.chat_body import ChatBody
from lightning_xt.server.bodies.completion_body import CompletionBody
from lightning_xt.server.bodies.translation_body import TranslationBody

LIST = "a text, a list of texts, a list of ids, or a list of such lists"


def read_error(found: httpx.Response, status: int) -> dict[str, Any]:
    assert found.status_code == status, found.text
    (name, error), *others = found.json().items()
    assert name == "error" and not others and error.keys() == {"message", "type", "param", "code"}
    assert "\n" not in error["message"] and "Traceback" not in error["message"] and "/work" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"promt": "x"}, "promt", "unknown field 'promt'; did you mean prompt?"),
        ({"prompt": "a", "temprature": 1}, "temprature", "unknown field 'temprature'; did you mean temperature?"),
        (
            {"prompt": "a", "suffix": "b"},
            "suffix",
            "suffix is not supported: models of this server continue a text at its end only; omit it",
        ),
        ({}, "prompt", "prompt is required"),
        ({"prompt": 5}, "prompt", f"prompt is 5, but it should be {LIST}"),
        ({"prompt": None}, "prompt", f"prompt is null, but it should be {LIST}"),
        ({"prompt": [1, "a"]}, "prompt", f"prompt is a list of 2, but it should be {LIST}"),
        ({"prompt": []}, "prompt", "prompt: list should have at least 1 item, not 0"),
        ({"prompt": [[]]}, "prompt", "prompt: list should have at least 1 item, not 0"),
        ({"prompt": ["a"] * 129}, "prompt", "prompt: list should have at most 128 items, not 129"),
        ({"prompt": [300]}, "prompt", "prompt has token 300, outside the vocabulary of 0 to 255"),
        ({"prompt": [-1]}, "prompt", "prompt: each item should be greater than or equal to 0"),
        (
            {"prompt": "a", "temperature": -1},
            "temperature",
            "temperature is -1, but it should be greater than or equal to 0",
        ),
        ({"prompt": "a", "top_p": 0}, "top_p", "top_p is 0, but it should be greater than 0"),
        ({"prompt": "a", "max_tokens": "5"}, "max_tokens", "max_tokens is '5', but it should be a valid integer"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens", "max_tokens is true, but it should be a valid integer"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens", "max_tokens is 1.5, but it should be a valid integer"),
        (
            {"prompt": "a", "max_tokens": 5000},
            "max_tokens",
            "max_tokens is 5000, but this server generates at most 4096",
        ),
        ({"prompt": "a", "max_tokens": 0}, None, "max_tokens is 0, which is for echo; set echo to true, or raise it"),
        ({"prompt": "a", "stop": 7}, "stop", "stop is 7, but it should be a text or a list of texts"),
        ({"prompt": "a", "stop": [""]}, "stop", "stop: string should have at least 1 character"),
        ({"prompt": "a", "logit_bias": {"a": 1}}, "logit_bias", "logit_bias has the key 'a', but its keys are ids"),
        (
            {"prompt": "a", "logit_bias": {"256": 1}},
            "logit_bias",
            "logit_bias has token 256, outside the vocabulary of 0 to 255",
        ),
        ({"prompt": "a", "best_of": 3}, None, "best_of is 3, but it must equal n, which is 1; omit it"),
        (
            {"prompt": ["a"] * 100, "n": 2},
            None,
            "100 prompts with n 2 make 200 completions, but a request may have 128; send several requests",
        ),
        (
            {"prompt": "a", "n": 2, "temperature": 0},
            "n",
            "n is 2, but at temperature 0 all completions would be the same; raise the temperature",
        ),
        (
            {"prompt": "a", "stream_options": {}},
            None,
            "stream_options is for streamed answers; set stream to true, or omit it",
        ),
        (
            {"prompt": "a", "stream": True, "stream_options": {"include_usag": True}},
            "stream_options.include_usag",
            "unknown field 'include_usag'; did you mean include_usage?",
        ),
        ([], None, "the body must be a JSON object"),
        ({"prompt": "a" * 99, "n": "b" * 99}, "n", f"n is '{'b' * 56}..., but it should be a valid integer"),
    ],
)
def test_a_wrong_field_is_named(body: Any, param: str | None, message: str) -> None:
    error = read_error(make_server().post("/v1/completions", body), 400)
    assert (error["param"], error["message"], error["type"]) == (param, message, "invalid_request_error")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"messages": []}, "messages", "messages: list should have at least 1 item, not 0"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "messages[0].content is required"),
        (
            {"messages": [{"role": "userr", "content": "a"}]},
            "messages",
            "messages[0]: unknown role 'userr'; did you mean user?",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content",
            "messages[0].content is 5, but it should be a text or a list of text parts",
        ),
        ({"messages": [{"role": "user", "content": "a"}], "tools": []}, "tools", None),
        ({"messages": [{"role": "user", "content": "a"}], "max_tokens": 0}, None, None),
        ({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "max_completion_tokens": 2}, None, None),
        ({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}, None, None),
    ],
)
def test_a_wrong_field_of_a_chat_is_named(body: Any, param: str | None, message: str | None) -> None:
    error = read_error(make_server().post("/v1/chat/completions", body), 400)
    expected = {
        "tools": "tools is not supported: models of this server call no tools; omit it",
        "max_completion_tokens": "max_tokens and max_completion_tokens are two names of one limit; give one of them",
        "top_logprobs": "top_logprobs needs logprobs; set logprobs to true, or omit it",
        "max_tokens": "max_tokens is 0, but an answer needs at least one token; raise it",
    }
    assert error["param"] == param
    assert error["message"] == (message or next(text for name, text in expected.items() if name in body))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the request has no body; send a JSON object with Content-Type: application/json"),
        (b'{"prompt":', "the body is not valid JSON: Expecting value (character 10)"),
        (b"\xff", "the body is not JSON that can be read: it may be nested too deeply, or not be UTF-8"),
        (b"[" * 100_000, "the body is not JSON that can be read: it may be nested too deeply, or not be UTF-8"),
        (
            b'{"prompt":"a","seed":' + b"9" * 5000 + b"}",
            "the body is not JSON that can be read: it may be nested too deeply, or not be UTF-8",
        ),
        (b'{"prompt":"a","temperature":NaN}', "temperature is nan, but it should be a finite number"),
        (b'{"prompt":"a","temperature":1e999}', "temperature is inf, but it should be a finite number"),
        (
            b'{"prompt":"a","temperature":' + b"9" * 400 + b"}",
            "temperature is a very long number, but it should be a valid number",
        ),
        (b'{"prompt":"\\ud800"}', "a text has half of a surrogate pair (\\ud800 to \\udfff), not a character"),
        (b'{"\\udfff":1}', "a text has half of a surrogate pair (\\ud800 to \\udfff), not a character"),
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused(content: bytes, message: str) -> None:
    headers = {"Content-Type": "application/json"}
    found = make_server().request("POST", "/v1/completions", content=content, headers=headers)
    assert read_error(found, 400)["message"] == message


def test_whole_surrogate_pairs_are_characters() -> None:
    content, headers = b'{"prompt":"\\ud83d\\ude00"}', {"Content-Type": "application/json; charset=utf-8"}
    server = make_server()
    assert server.request("POST", "/v1/completions", content=content, headers=headers).status_code == 200
    assert bytes(server.context.engine.calls[0][1]).decode() == "\U0001f600"


def test_another_type_of_body_is_refused() -> None:
    found = make_server().request(
        "POST", "/v1/completions", content=b'{"prompt":"a"}', headers={"Content-Type": "text/plain"}
    )
    assert read_error(found, 415)["message"] == "send the body as JSON, with Content-Type: application/json"


def test_an_unknown_model_is_named_with_close_ones() -> None:
    server = make_server(models=[make_language_model("tiny"), make_language_model("small")])
    error = read_error(server.post("/v1/completions", {"model": "tini", "prompt": "a"}), 404)
    assert (error["message"], error["code"]) == ("unknown model 'tini'; did you mean tiny?", "model_not_found")
    assert read_error(server.get("/v1/models/tini"), 404)["code"] == "model_not_found"
    error = read_error(server.post("/v1/completions", {"prompt": "a"}), 400)
    assert error["message"] == "model is required: there is small, tiny"


def test_a_prompt_longer_than_the_positions_is_refused() -> None:
    server = make_server(models=[make_language_model(max_length=8)])
    error = read_error(server.post("/v1/completions", {"prompt": "a" * 9}), 400)
    assert error["code"] == "context_length_exceeded" and error["message"] == (
        "the prompt has 9 tokens and max_tokens is not set, but prompt and completion may have 8 tokens together; "
        "shorten the prompt"
    )
    error = read_error(server.post("/v1/completions", {"prompt": "a" * 4, "max_tokens": 5}), 400)
    assert error["message"].endswith("shorten the prompt or ask for at most 4 tokens")
    error = read_error(server.post("/v1/completions", {"prompt": "a" * 9, "max_tokens": 0, "echo": True}), 400)
    assert "the prompt has 9 tokens and max_tokens is 0, but" in error["message"]


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"prompt": "a", "n": 128, "max_tokens": 4096, "logprobs": 20}, 524288),
        ({"prompt": ["a" * 1000] * 64, "n": 2, "max_tokens": 1, "logprobs": 20, "echo": True}, 128128),
    ],
)
def test_an_answer_that_would_take_too_much_memory_is_refused(body: Any, tokens: int) -> None:
    server = make_server()
    error = read_error(server.post("/v1/completions", body), 400)
    assert error["code"] == "answer_too_large" and error["message"] == (
        f"at most {tokens} tokens with 20 alternatives each make {21 * tokens} log-probabilities, but an answer may "
        "have 1000000; lower n, max_tokens or logprobs, or send several requests"
    )
    assert server.context.engine.calls == []
    assert server.post("/v1/completions", {"prompt": "a", "n": 128, "max_tokens": 4096}).status_code == 200
    wide = make_server(max_tokens=8192)
    error = read_error(wide.post("/v1/completions", {"prompt": "a", "n": 128, "max_tokens": 8192}), 400)
    assert error["message"] == (
        "the completions may have 1048576 tokens, but those of an answer may have 1000000; lower n or max_tokens, or "
        "send several requests"
    )


@pytest.mark.parametrize(("path", "method", "status"), [("/nope", "GET", 404), ("/v1/completions", "GET", 405)])
def test_an_unknown_route_is_named(path: str, method: str, status: int) -> None:
    error = read_error(make_server().request(method, path), status)
    assert error["message"].startswith(f"there is no {method} {path}")


def test_a_full_queue_is_429_with_a_time_to_wait() -> None:
    found = make_server(ScriptedEngine(refusal=QueueFullError("8 jobs wait already"))).post(
        "/v1/completions", {"prompt": "a"}
    )
    error = read_error(found, 429)
    assert (error["type"], error["code"], found.headers["retry-after"]) == ("rate_limit_error", "queue_full", "1")


def test_an_engine_that_ends_is_503() -> None:
    server = make_server(ScriptedEngine(refusal=EngineClosedError("")))
    assert read_error(server.post("/v1/completions", {"prompt": "a"}), 503)["code"] == "stopping"
    server = make_server(ScriptedEngine(error=EngineClosedError("")))
    assert read_error(server.post("/v1/completions", {"prompt": "a"}), 503)["code"] == "stopping"


@pytest.mark.parametrize("when", ["refusal", "error"])
def test_an_engine_that_has_failed_is_500(when: str) -> None:
    found = make_server(ScriptedEngine(**{when: EngineFailedError("")})).post("/v1/completions", {"prompt": "a"})
    error = read_error(found, 500)
    assert error["code"] == "engine_failed" and found.headers["x-should-retry"] == "false"
    assert error["message"].startswith("the server's engine has failed and answers no more requests")


def test_a_request_of_more_sequences_than_may_ever_wait_is_400() -> None:
    server = make_server(rows=1, max_waiting=2)
    error = read_error(server.post("/v1/completions", {"prompt": ["a", "b"], "n": 2}), 400)
    assert error["code"] == "too_many_sequences" and error["message"] == (
        "the request has 4 sequences, but at most 3 may be decoded or wait here (--rows and --max_waiting); send "
        "several requests"
    )
    scored = {"prompt": ["a"] * 4, "echo": True, "logprobs": 0, "max_tokens": 0}
    assert read_error(server.post("/v1/completions", scored), 400)["code"] == "too_many_sequences"
    assert server.post("/v1/completions", {**scored, "logprobs": None}).status_code == 200
    assert server.post("/v1/completions", {"prompt": ["a"] * 3}).status_code == 200


def test_a_window_of_compiled_steps_is_refused() -> None:
    server = make_server(models=[make_language_model(compiled=True)])
    error = read_error(server.post("/v1/completions", {"prompt": "a", "window": 5}), 400)
    assert error["param"] == "window" and error["message"] == (
        "window is 5, but this server compiles decode steps, which takes long for each window; omit it, or use a "
        "server without --compile"
    )
    assert server.post("/v1/completions", {"prompt": "a"}).status_code == 200


def test_an_unexpected_error_is_500_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    for engine in (
        ScriptedEngine(refusal=RuntimeError("/srv/secret")),
        ScriptedEngine(error=KeyError("/srv/secret")),
    ):
        error = read_error(make_server(engine).post("/v1/completions", {"prompt": "a"}), 500)
        assert error["message"] == "the server failed at this request; its log has the reason"
        assert "/srv/secret" in caplog.text
        caplog.clear()


def test_an_unexpected_error_of_a_route_has_the_headers_and_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: Any, *args: Any) -> None:
        raise KeyError("/srv/secret")

    monkeypatch.setattr("lightning_xt.server.served_model.ServedModel.describe", fail)
    server = make_server()
    found = server.get("/v1/models")
    assert read_error(found, 500)["message"] == "the server failed at this request; its log has the reason"
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert found.headers["cache-control"] == "no-store" and found.headers["x-content-type-options"] == "nosniff"
    assert [record.exc_info is not None for record in caplog.records] == [True]
    line = 'lightning_xt_requests_total{code="500",route="/v1/models"} 1.0'
    assert line in server.get("/metrics").text.splitlines()


def test_an_error_in_a_stream_is_its_last_event(caplog: pytest.LogCaptureFixture) -> None:
    found = make_server(ScriptedEngine(error=KeyError("secret"))).post(
        "/v1/completions", {"prompt": "a", "stream": True}
    )
    *_, last, rest = found.text.split("\n\n")
    assert rest == "" and "[DONE]" not in found.text and "secret" not in found.text
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"


class HastyEngine(ScriptedEngine):
    """Engine that has sent all events before its job is returned."""

    def _start(self, kind, call, on_event, count, events=None):
        job = Job(call[0], count, on_event, lambda job: None)
        self._run(job, self._write(count, len(call[1])))
        return job


def test_a_model_may_be_faster_than_its_requests_are_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_xt.server.jobs.job_group.MOST_PENDING", 3)
    found = make_server(HastyEngine("fox")).post("/v1/completions", {"prompt": ["a", "b"]})
    assert [each["text"] for each in found.json()["choices"]] == ["fox", "fox"]


def test_an_answer_that_takes_too_long_is_503_and_its_job_is_cancelled() -> None:
    engine = ScriptedEngine()
    engine.hold.clear()
    error = read_error(make_server(engine, timeout=0.2).post("/v1/completions", {"prompt": "a"}), 503)
    assert error["message"] == "the answer was not complete after 0.2 seconds; ask for fewer tokens"
    assert error["code"] == "timeout" and engine.cancelled.wait(5)


FULL_SIZE = {
    "texts": ("/v1/completions", {"prompt": ["a"] * 250_000}),
    "ids": ("/v1/completions", {"prompt": [-1] * 330_000}),
    "lists of ids": ("/v1/completions", {"prompt": [[-1] * 2500] * 128}),
    "stops": ("/v1/completions", {"prompt": "a", "stop": [5] * 300_000}),
    "biases": ("/v1/completions", {"prompt": "a", "logit_bias": {f"a{n}": 1 for n in range(90_000)}}),
    "messages": ("/v1/chat/completions", {"messages": [{"role": "a", "content": [{}] * 1024}] * 301}),
    "fields": ("/v1/completions", {f"a{n}": 1 for n in range(90_000)}),
    "sources": ("/v1/translations", {"source": [1] * 500_000}),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_an_invalid_body_of_full_size_is_refused_by_its_first_errors(name: str) -> None:
    path, body = FULL_SIZE[name]
    given = {
        "/v1/completions": CompletionBody,
        "/v1/chat/completions": ChatBody,
        "/v1/translations": TranslationBody,
    }[path]
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError) as caught:
            given.model_validate(body)
        # Every error has a report of about a kilobyte.
        assert caught.value.error_count() <= 4 and tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert len(read_error(make_server().post(path, body), 400)["message"]) < 300


@pytest.mark.parametrize("streamed", [False, True])
def test_a_silent_stream_has_comments(streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_xt.server.jobs.event_stream.SILENCE", 0.05)
    engine = ScriptedEngine()
    engine.hold.clear()
    threading.Timer(0.5, engine.hold.set).start()
    found = make_server(engine).post("/v1/completions", {"prompt": "a", "stream": streamed})
    assert (found.text.count(": waiting\n\n") >= 2) == streamed
    assert found.text.endswith("data: [DONE]\n\n") == streamed


def test_long_names_are_quoted_shortly() -> None:
    name, server = "a" * 50_000, make_server()
    for found, status in (
        (server.post("/v1/completions", {"prompt": "a", name: 1}), 400),
        (server.post("/v1/completions", {"prompt": "a", "stream": True, "stream_options": {name: 1}}), 400),
        (server.post("/v1/completions", {"prompt": "a", "logit_bias": {name: 1}}), 400),
        (server.post("/v1/completions", {"prompt": "a", "model": name}), 400),
        (server.get(f"/v1/models/{name}"), 404),
        (server.request(name.upper(), "/v1/models"), 405),
    ):
        assert len(json.dumps(read_error(found, status))) < 1000


def test_clients_need_not_repeat_what_fails_again() -> None:
    engine = ScriptedEngine()
    engine.hold.clear()
    late = make_server(engine, timeout=0.05).post("/v1/completions", {"prompt": "a"})
    failed = make_server(ScriptedEngine(error=KeyError("a"))).post("/v1/completions", {"prompt": "a"})
    explained = make_server(ScriptedEngine(error=StepError("a sentence"))).post("/v1/completions", {"prompt": "a"})
    for found, status in ((late, 503), (failed, 500), (explained, 500)):
        assert found.status_code == status and found.headers["x-should-retry"] == "false"
    full = make_server(ScriptedEngine(refusal=QueueFullError(""))).post("/v1/completions", {"prompt": "a"})
    assert full.status_code == 429 and "x-should-retry" not in full.headers
