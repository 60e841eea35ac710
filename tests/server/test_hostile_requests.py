"""Hostile requests: whatever a client sends is answered, never with a fault of the server, and leaves no work."""

import asyncio
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import strategies as st
from properties.holds import holds
from scripted_engine import make_server
from served_models import make_completer, make_translator

from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.server.bodies.chat_body import ChatBody
from lightning_xt.server.bodies.completion_body import CompletionBody
from lightning_xt.server.bodies.translation_body import TranslationBody
from lightning_xt.server.served_model import ServedModel

Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]
HOST: Headers = [(b"host", b"localhost:8000")]
BODIES = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
    "/v1/translations": TranslationBody,
}
VALID: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "lm", "prompt": "fox", "max_tokens": 2},
    "/v1/chat/completions": {"model": "lm", "messages": [{"role": "user", "content": "fox"}], "max_tokens": 2},
    "/v1/translations": {"model": "pairs", "source": "3 4", "max_tokens": 2},
}
MARKS = ("Traceback", 'File "', "lightning_xt/", "site-packages", "/home/", "/usr/", str(Path(__file__).parents[2]))
"""Texts that an answer must not have."""

ROUTES = st.sampled_from(sorted(VALID))
# Surrogates are not characters, and JSON can write them.
TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(["", "\x00", "\ud800", "\u202e", "a" * 5000])
NUMBERS = (
    st.integers()
    | st.floats(allow_nan=True)
    | st.sampled_from([2**31, -(2**63), 2**64, 10**400, 1e308, -0.0, math.inf, -math.inf, math.nan])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
FIELDS = {route: sorted(body.model_fields) for route, body in BODIES.items()}


class Runtime:
    """An application with tiny models and their engine, called without a network."""

    def __init__(self) -> None:
        generators = {"lm": make_completer(), "pairs": make_translator()}
        self.engine = Engine(generators, rows=4, tokens=64, max_waiting=8)
        self.engine.start()
        models = [ServedModel(name, each, 64) for name, each in generators.items()]
        self.server = make_server(self.engine, models, max_tokens=16, max_body_bytes=2**17)
        self.runner = asyncio.Runner()

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Headers = JSON, *, end: bool = True
    ) -> tuple[int, bytes]:
        """Return the status and the body of an answer. An exception that leaves the application is a fault."""
        return self.runner.run(asyncio.wait_for(self._call(method, path, body, headers, end=end), 60))

    async def _call(self, method: str, path: str, body: bytes, headers: Headers, *, end: bool) -> tuple[int, bytes]:
        messages = iter([{"type": "http.request", "body": body, "more_body": not end}])
        answered, sent = asyncio.Event(), []

        async def receive() -> dict[str, Any]:
            if (message := next(messages, None)) is not None:
                return message
            if end:
                await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        # As uvicorn does.
        target = quote(path, safe="/?%*", errors="surrogatepass")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(target.partition("?")[0]),
            "raw_path": target.partition("?")[0].encode(),
            "query_string": target.partition("?")[2].encode(),
            "headers": headers if any(name == b"host" for name, _ in headers) else headers + HOST,
            "client": ("127.0.0.1", 9),
            "server": ("127.0.0.1", 8000),
        }
        await self.server.app(scope, receive, send)
        answered.set()
        return (sent[0]["status"] if sent else 0), b"".join(each.get("body", b"") for each in sent)

    def close(self) -> None:
        """End the engine."""
        self.engine.close()
        self.runner.close()


@cache
def runtime() -> Runtime:
    """Return the one application of these tests."""
    return Runtime()


@pytest.fixture(scope="module", autouse=True)
def _end() -> Iterator[None]:
    """End the engine, which has nothing left to do."""
    yield
    if runtime.cache_info().currsize:
        loads = runtime().engine.measure().values()
        assert [(load.running, load.waiting) for load in loads] == [(0, 0), (0, 0)]
        runtime().close()
        runtime.cache_clear()


def check_refusal(status: int, content: bytes, *, otherwise: tuple[int, ...] = ()) -> None:
    """Assert that a request was refused in OpenAI's form, unless it was answered with another accepted status."""
    if status in otherwise:
        return
    assert 400 <= status < 500, (status, content)
    error = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert len(error["message"]) < 2000 and not any(mark in error["message"] for mark in MARKS), error


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


@holds(default=50, many=1000, route=ROUTES, body=st.binary() | TEXTS.map(lambda text: text.encode("utf-8", "replace")))
def test_bytes_are_refused(route: str, body: bytes) -> None:
    check_refusal(*runtime().call("POST", route, body))


@holds(default=50, many=1000, route=ROUTES, value=VALUES)
def test_json_of_any_shape_is_refused(route: str, value: Any) -> None:
    check_refusal(*runtime().call("POST", route, json.dumps(value).encode()))


@holds(default=80, many=1000, route=ROUTES, data=st.data())
def test_any_value_of_any_field_is_answered(route: str, data: st.DataObject) -> None:
    fields = data.draw(st.dictionaries(st.sampled_from(FIELDS[route]), VALUES, min_size=1, max_size=3))
    body = json.dumps({**VALID[route], **fields}).encode()
    check_refusal(*runtime().call("POST", route, body), otherwise=(200,))


@holds(default=50, many=1000, route=ROUTES, name=TEXTS, value=VALUES)
def test_unknown_fields_are_refused(route: str, name: str, value: Any) -> None:
    if name not in FIELDS[route]:
        status, content = runtime().call("POST", route, json.dumps({**VALID[route], name: value}).encode())
        check_refusal(status, content)
        assert status == 400


@pytest.mark.parametrize("route", sorted(VALID))
@pytest.mark.parametrize("opening", ["[", '{"prompt":', '{"a":[', '{"messages":[{"content":[', '{"logit_bias":{"0":'])
def test_deeply_nested_json_is_refused(route: str, opening: str) -> None:
    closing = "".join({"[": "]", "{": "}"}.get(sign, "") for sign in reversed(opening))
    for length in (100, 5_000, 50_000):
        depth = length // len(opening)
        for body in (opening * depth, opening * depth + "1" + closing * depth):
            check_refusal(*runtime().call("POST", route, body.encode()))


NUMBER_TEXTS = ["9" * 100_000, "-1e999999", "1e-999999", "NaN", "Infinity", "-Infinity", "0x10", "01", "1_000", "+1"]


@pytest.mark.parametrize("route", sorted(VALID))
@pytest.mark.parametrize("value", NUMBER_TEXTS, ids=[value[:9] for value in NUMBER_TEXTS])
def test_hostile_numbers_are_refused(route: str, value: str) -> None:
    for field in ("max_tokens", "temperature", "seed", "stop", "source", "prompt", "messages", "model"):
        body = json.dumps({**VALID[route], field: "VALUE"}).replace('"VALUE"', value)
        # It is 0.
        accepted = (200,) if value == "1e-999999" and field in ("temperature", "seed") else ()
        check_refusal(*runtime().call("POST", route, body.encode()), otherwise=accepted)


NAMES = [
    b"accept", b"authorization", b"connection", b"content-encoding", b"content-length", b"content-type", b"cookie",
    b"expect", b"host", b"origin", b"range", b"te", b"transfer-encoding", b"upgrade", b"x-forwarded-for",
]  # fmt: skip
LINES = st.binary(max_size=60) | st.sampled_from(
    [b"application/json", b"gzip", b"-1", b"9" * 50, b"Bearer \xff", b"*/*"]
)


@holds(
    default=60,
    many=1000,
    route=ROUTES,
    headers=st.lists(st.tuples(st.sampled_from(NAMES), LINES), max_size=5),
    typed=st.booleans(),
)
def test_headers_are_answered(route: str, headers: Headers, typed: bool) -> None:
    body = json.dumps(VALID[route]).encode()
    check_refusal(*runtime().call("POST", route, body, headers + JSON if typed else headers), otherwise=(200,))


METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "", "\x00"])
PATHS = st.sampled_from([
    "", "/v1", "/v1/", "/v1/completions/", "//v1/completions", "/v1/completions/../models", "/v1/completions\n", "*",
    "/v1/models/", "/v1/models/x", "/v1/models/\x00", "/v1/models/%2e%2e%2f", "/metrics/", "/redoc", "/%ed%a0%80",
    "/playground/", "/playground/../../served_model.py", "/playground/%2e%2e/served_model.py", "/" + "a" * 5000,
])  # fmt: skip


@holds(default=60, many=1000, method=METHODS, path=PATHS | TEXTS.map("/".__add__))
def test_other_routes_are_refused(method: str, path: str) -> None:
    status, content = runtime().call(method, path, b"{}")
    if method == "HEAD":
        assert 400 <= status < 500
    # Starlette ignores a line feed at the end.
    elif path.partition("?")[0].removesuffix("\n") != "/" or method != "GET":
        check_refusal(status, content)


@holds(default=30, many=500, method=METHODS, route=ROUTES)
def test_other_methods_are_refused(method: str, route: str) -> None:
    if method != "POST":
        assert runtime().call(method, route, json.dumps(VALID[route]).encode())[0] == 405


@pytest.mark.parametrize("route", sorted(VALID))
def test_a_client_that_goes_before_its_body_is_there_gets_no_answer(route: str) -> None:
    assert runtime().call("POST", route, b'{"prompt', end=False) == (0, b"")


@pytest.mark.parametrize("route", sorted(VALID))
def test_a_valid_request_is_answered(route: str) -> None:
    assert runtime().call("POST", route, json.dumps(VALID[route]).encode())[0] == 200


def test_what_a_tokenizer_refuses_is_a_fault_of_the_request() -> None:
    body = json.dumps({"model": "pairs", "source": "3 :"}).encode()
    status, content = runtime().call("POST", "/v1/translations", body)
    assert status == 400 and "':' is not one of the 11 ids" in json.loads(content)["error"]["message"]


def test_a_long_path_is_quoted_in_part() -> None:
    status, content = runtime().call("GET", "/" + "a" * 5000)
    assert status == 404 and f"there is no GET /{'a' * 99}...; GET /docs" in json.loads(content)["error"]["message"]
