"""Safety of a server: host, key, size of bodies, headers, the end of the server, clients that leave."""

import asyncio
import json
from typing import Any

import pytest
from scripted_engine import Client, ScriptedEngine, make_language_model, make_server, make_translator

from lightning_xt.inference.serving.engine_load import EngineLoad
from lightning_xt.server.server_metrics import ServerMetrics

KEY = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert make_server().get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.com", "127.0.0.1.evil.com", "evil.com:8000", "[::2]", "", "localhost.evil"])
def test_another_name_is_refused_on_loopback(host: str) -> None:
    found = make_server().get("/v1/models", headers={"Host": host})
    assert (found.status_code, found.json()["error"]["code"]) == (400, "invalid_host")
    assert make_server(hosts=()).get("/v1/models", headers={"Host": host or "x"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/models/tiny", "/nope"])
def test_a_key_is_needed(path: str) -> None:
    server = make_server(api_key="secret")
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic secret"},
        {"Authorization": "Bearer"},
    ):
        found = server.get(path, headers=headers)
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")
        assert found.headers["www-authenticate"] == "Bearer" and "secret" not in found.text
    assert server.get(path, headers=KEY).status_code in (200, 404)
    assert server.get(path, headers=[("Authorization", b"Bearer \xff")]).status_code == 401


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/docs/style.css", "/openapi.json", "/playground/api.js"])
def test_pages_need_no_key(path: str) -> None:
    assert make_server(api_key="secret").get(path).status_code == 200


def test_a_large_body_is_refused_before_it_is_read() -> None:
    server = make_server(max_body_bytes=2000)
    body = {"prompt": "a" * 2000}
    found = server.post("/v1/completions", body)
    assert found.status_code == 413
    assert found.json()["error"]["message"] == "the body has more than 2000 bytes; send less at once"

    async def pieces():
        for _ in range(30):
            yield b" " * 100

    found = server.request("POST", "/v1/completions", content=pieces(), headers={"Content-Type": "application/json"})
    assert found.status_code == 413


def test_answers_have_the_headers_of_safe_pages() -> None:
    for path, status in (("/", 200), ("/v1/models", 200), ("/nope", 404)):
        found = make_server().get(path, headers={"Origin": "http://evil.com"})
        assert found.status_code == status
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert found.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in found.headers if name.startswith("access-control")]
    # A browser asks this before a page of another site may send JSON.
    asked = {"Origin": "http://evil.com", "Access-Control-Request-Method": "POST"}
    assert make_server().request("OPTIONS", "/v1/completions", headers=asked).status_code == 405


@pytest.mark.parametrize(
    "name", ["../application.py", "..%2fapplication.py", "%2e%2e/x", "none.js", "__init__.py", "."]
)
def test_nothing_but_the_files_of_the_playground_is_served(name: str) -> None:
    server = make_server()
    found = server.get(f"/playground/{name}")
    assert found.status_code == 404 or found.content == server.get("/").content


def test_nothing_is_redirected() -> None:
    for path in ("/v1/models/", "/docs/", "/v1//completions"):
        assert make_server().get(path).status_code == 404


def test_a_stopping_server_takes_no_new_requests() -> None:
    server = make_server()
    server.context.draining = True
    found = server.post("/v1/completions", {"prompt": "a"})
    assert (found.status_code, found.json()["error"]["code"]) == (503, "stopping")
    assert found.headers["retry-after"] == "1" and found.headers["connection"] == "close"
    health = server.get("/health")
    assert (health.status_code, health.json()) == (503, {"status": "stopping", "models": ["tiny"]})
    assert server.get("/metrics").status_code == 200


def send_and_leave(server: Client, body: dict[str, Any], *, after: int) -> list[dict[str, Any]]:
    """Send a request whose client leaves after a number of messages of the answer; return these."""
    content = json.dumps(body).encode()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "POST",
             "path": "/v1/completions", "raw_path": b"/v1/completions", "query_string": b"", "root_path": "",
             "scheme": "http", "headers": headers, "client": ("127.0.0.1", 1)}  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        left, messages = asyncio.Event(), iter([{"type": "http.request", "body": content, "more_body": False}])

        async def receive() -> dict[str, Any]:
            if message := next(messages, None):
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if len(sent) >= after:
                left.set()

        if after == 0:
            asyncio.get_running_loop().call_later(0.2, left.set)
        await asyncio.wait_for(server.app(scope, receive, send), 10)

    asyncio.run(run())
    return sent


@pytest.mark.parametrize(("streamed", "after"), [(True, 2), (False, 0)])
def test_a_client_that_leaves_cancels_its_job(streamed: bool, after: int) -> None:
    engine = ScriptedEngine()
    engine.hold.clear()
    server = make_server(engine)
    sent = send_and_leave(server, {"prompt": "a", "stream": streamed}, after=after)
    assert engine.cancelled.wait(5) and server.context.in_flight == 0
    if streamed:
        assert sent[0]["status"] == 200 and b"[DONE]" not in b"".join(each.get("body", b"") for each in sent)


def test_a_body_that_does_not_come_is_given_up() -> None:
    server = make_server(body_timeout=0.1)

    async def run() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"",
                 "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}  # fmt: skip

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(5)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await server.app(scope, receive, send)
        return sent

    start, body = asyncio.run(run())[:2]
    assert start["status"] == 408 and b"the body was not complete after 0.1 seconds" in body["body"]


def test_metrics_count_requests_tokens_and_times() -> None:
    server = make_server()
    server.post("/v1/completions", {"prompt": "a"})
    server.post("/v1/completions", {"promt": "a"})
    server.get("/some/other/path")
    text = server.get("/metrics").text
    for line in (
        'lightning_xt_requests_total{code="200",route="/v1/completions"} 1.0',
        'lightning_xt_requests_total{code="400",route="/v1/completions"} 1.0',
        'lightning_xt_requests_total{code="404",route="other"} 1.0',
        'lightning_xt_running_jobs{model="tiny"} 1.0',
        'lightning_xt_waiting_jobs{model="tiny"} 2.0',
        'lightning_xt_sequences{model="tiny"} 5.0',
        'lightning_xt_jobs_total{model="tiny",outcome="completed"} 6.0',
        'lightning_xt_jobs_total{model="tiny",outcome="failed"} 7.0',
        'lightning_xt_jobs_total{model="tiny",outcome="cancelled"} 8.0',
        'lightning_xt_prompt_tokens_total{model="tiny"} 3.0',
        'lightning_xt_generated_tokens_total{model="tiny"} 4.0',
        'lightning_xt_time_to_first_token_seconds_count{model="tiny"} 1.0',
        'lightning_xt_time_per_token_seconds_count{model="tiny"} 3.0',
    ):
        assert line in text.splitlines()


def test_metrics_do_not_count_what_came_before_the_first_client() -> None:
    before = {"tiny": EngineLoad(0, 0, 0, 1, 3, 6, 6, 6)}
    text = ServerMetrics(ScriptedEngine().measure, before).render().decode()
    for line in (
        'lightning_xt_prompt_tokens_total{model="tiny"} 2.0',
        'lightning_xt_generated_tokens_total{model="tiny"} 1.0',
        'lightning_xt_jobs_total{model="tiny",outcome="completed"} 0.0',
        'lightning_xt_jobs_total{model="tiny",outcome="failed"} 1.0',
        'lightning_xt_running_jobs{model="tiny"} 1.0',
    ):
        assert line in text.splitlines()


def test_models_are_listed_with_the_defaults_and_ranges_of_their_options() -> None:
    server = make_server()
    (model,) = server.get("/v1/models").json()["data"]
    assert model == server.get("/v1/models/tiny").json()
    assert model["alignment"] is False
    assert (model["id"], model["kind"], model["max_length"], model["vocab_size"]) == (
        "tiny",
        "language_model",
        None,
        256,
    )
    defaults = model["defaults"]
    assert defaults["temperature"] == {"type": "number", "default": 1.0, "minimum": 0, "maximum": 100}
    assert defaults["top_p"] == {"type": "number", "default": None, "above": 0, "maximum": 1}
    assert defaults["max_tokens"] == {"type": "integer", "default": 256, "minimum": 1, "maximum": 4096}
    assert defaults["top_k"]["minimum"] == 0 and defaults["n"]["maximum"] == 128


def test_ranges_are_those_of_the_server() -> None:
    server = make_server(models=[make_language_model(), make_translator()], rows=4, max_waiting=8)
    language_model, translator = (each["defaults"] for each in server.get("/v1/models").json()["data"])
    assert language_model["n"]["maximum"] == 12
    assert translator["beams"]["maximum"] == translator["n_best"]["maximum"] == 4


def test_the_docs_page_needs_nothing_from_elsewhere() -> None:
    page = make_server().get("/docs")
    assert page.headers["content-type"].startswith("text/html") and "POST /v1/translations" in page.text
    assert "http" not in page.text.replace("http://127.0.0.1:8000", "") and "<script" not in page.text


def test_the_schema_has_the_errors_that_are_answered() -> None:
    schema = make_server(api_key="secret").get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/completions", "/v1/chat/completions", "/v1/translations", "/v1/models", "/v1/models/{name}", "/health",
        "/metrics",
    }  # fmt: skip
    for path, methods in schema["paths"].items():
        for route in methods.values():
            assert "422" not in route["responses"] and "200" in route["responses"]
            assert path == "/health" or "401" in route["responses"]
            assert {"400", "500"} <= route["responses"].keys()
            assert path == "/metrics" or "503" in route["responses"]
    assert "408" in schema["paths"]["/v1/completions"]["post"]["responses"]
    assert "X-Seed" in schema["paths"]["/v1/completions"]["post"]["responses"]["200"]["headers"]
    body = schema["components"]["schemas"]["CompletionBody"]
    assert body["additionalProperties"] is False and body["required"] == ["prompt"]
    assert body["properties"]["top_k"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 1048576}
    assert schema["security"] == [{"key": []}]
