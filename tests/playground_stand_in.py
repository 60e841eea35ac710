"""Stand-in for the HTTP API with scripted answers, for tests of the playground without a model.

`python tests/playground_stand_in.py [PORT]` serves the page.
"""

import asyncio
import json
import math
import random
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parents[1] / "lightning_xt" / "server" / "playground"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
STRICT = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
HOSTILE = "<img src=x onerror=document.title='broken'>"
KEY = "correct-horse"

SAMPLING = {
    "temperature": {"default": 1.0, "minimum": 0.0, "maximum": 100.0},
    "top_k": {"default": None, "minimum": 1, "maximum": 256},
    "top_p": {"default": None, "above": 0.0, "maximum": 1.0},
    "min_p": {"default": None, "minimum": 0.0, "maximum": 1.0},
    "max_tokens": {"default": 64, "minimum": 1, "maximum": 1024},
    "seed": {"default": None, "minimum": -(2**63), "maximum": 2**63},
}
PENALTIES = {
    "n": {"default": 1, "minimum": 1, "maximum": 8},
    "presence_penalty": {"default": 0.0, "minimum": -2.0, "maximum": 2.0},
    "frequency_penalty": {"default": 0.0, "minimum": -2.0, "maximum": 2.0},
    "repetition_penalty": {"default": 1.0, "minimum": 1.0, "maximum": 2.0},
}
SEARCH = {
    "beams": {"default": 1, "minimum": 1, "maximum": 32},
    "n_best": {"default": 1, "minimum": 1, "maximum": 32},
    "length_penalty": {"default": 1.0, "minimum": 0.0, "maximum": 3.0},
}
MODELS: list[dict[str, Any]] = [
    {
        "id": "stories",
        "object": "model",
        "kind": "language_model",
        "max_length": 1024,
        "vocab_size": 256,
        "defaults": SAMPLING | PENALTIES,
    },
    {
        "id": "english-german",
        "object": "model",
        "kind": "encoder_decoder",
        "max_length": 256,
        "vocab_size": 4000,
        "defaults": SAMPLING | SEARCH,
    },
    {
        "id": "unaligned",
        "object": "model",
        "kind": "encoder_decoder",
        "max_length": 256,
        "vocab_size": 4000,
        "alignment": False,
        "defaults": SAMPLING | SEARCH,
    },
]
STORY = [" there", " was", " a", " little", " fox", " who", " lived", "\n", "by", " the", " sea", ".", " Every", " day"]
GERMAN = ["Ein", " Hund", " läuft", " durch", " den", " Schnee", "."]


def build_app(key: str | None = None, delay: float = 0.01) -> FastAPI:
    """Build the application; each token takes `delay` seconds, at a prompt with "slow" ten times as many."""
    app = FastAPI()
    app.state.requests = []
    app.state.cancelled = 0

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        if request.url.path.startswith("/v1") and key and request.headers.get("authorization") != f"Bearer {key}":
            response: Response = _error(401, "The API key is missing or wrong.")
        else:
            response = await call_next(request)
        response.headers.update(STRICT)
        return response

    @app.get("/v1/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": MODELS}

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        body = await request.json()
        app.state.requests.append(body)
        if body["prompt"] == "":
            return _error(400, "The prompt is empty; write at least one token.")
        return StreamingResponse(_stream(app, body, delay), media_type="text/event-stream")

    @app.post("/v1/translations")
    async def translate(request: Request) -> Response:
        body = await request.json()
        app.state.requests.append(body)
        if body["model"] == "unaligned" and "alignment" in body:
            return _error(400, "unaligned has no alignment.")
        sources = body["source"] if isinstance(body["source"], list) else [body["source"]]
        translations = [
            {"index": index, "source": source, "candidates": _candidates(source, body)}
            for index, source in enumerate(sources)
        ]
        return JSONResponse({"object": "translations", "model": body["model"], "translations": translations})

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/playground", StaticFiles(directory=PAGE))
    return app


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status)


async def _stream(app: FastAPI, body: dict[str, Any], delay: float) -> AsyncIterator[str]:
    """Yield the chunks of all sequences in turn; number i is drawn with seed + i.

    A prompt with "slow" takes ten times as long; one with "bytes" gets a character of two tokens, and an end token.
    """
    n, most = body.get("n", 1), body.get("max_tokens", 64)
    draws = [random.Random(body.get("seed", 0) + index) for index in range(n)]
    done = False
    try:
        for step in range(most):
            await asyncio.sleep(delay * (10 if "slow" in body["prompt"] else 1))
            for index, draw in enumerate(draws):
                end = "length" if step + 1 == most and "bytes" not in body["prompt"] else None
                token, log_prob, top = _draw(draw, body, step)
                if step == 0 and "bytes" in body["prompt"]:
                    yield _chunk(index, body, "", "token_id:195", log_prob, {"token_id:195": log_prob}, None)
                    yield _chunk(index, body, "\u00fc", "token_id:188", log_prob, {"token_id:188": log_prob}, None)
                else:
                    yield _chunk(index, body, token, token, log_prob, top, end)
        if "bytes" in body["prompt"]:
            yield _chunk(0, body, "", "<end>", -0.5, {"<end>": -0.5, "x": -1.5}, "stop")
        done = True
        yield "data: [DONE]\n\n"
    finally:
        app.state.cancelled += not done


def _draw(draw: random.Random, body: dict[str, Any], step: int) -> tuple[str, float, dict[str, float]]:
    """Draw a token, its log-probability and its alternatives."""
    probability = draw.choice([0.95, 0.8, 0.6, 0.4, 0.2, 0.04])
    token = HOSTILE if "hostile" in body["prompt"] and step == 0 else STORY[step % len(STORY)]
    others = draw.sample([word for word in (*STORY, " an", " the", " of", " old") if word != token], 4)
    weights = {token: probability} | {other: (1 - probability) / 2 ** (at + 1) for at, other in enumerate(others)}
    return token, math.log(probability), {text: math.log(weight) for text, weight in weights.items()}


def _chunk(
    index: int, body: dict[str, Any], text: str, token: str, log_prob: float, top: dict[str, float], end: str | None
) -> str:
    choice = {"index": index, "text": text, "finish_reason": end, "logprobs": None}
    if body.get("logprobs") is not None:
        choice["logprobs"] = {
            "tokens": [token],
            "token_logprobs": [log_prob],
            "top_logprobs": [top],
            "text_offset": [0],
        }
    return f"data: {json.dumps({'object': 'text_completion', 'model': body['model'], 'choices': [choice]})}\n\n"


def _candidates(source: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    words = source.split()
    found = []
    for rank in range(body.get("n_best", 1)):
        target = [*GERMAN[: len(GERMAN) - rank]]
        weights = [
            [math.exp(-abs(row / len(target) - column / len(words)) * 9) for column in range(len(words))]
            for row in range(len(target))
        ]
        weights = [[weight / sum(row) for weight in row] for row in weights]
        maps = {"source_tokens": words, "target_tokens": target, "weights": weights}
        alignment = maps if body.get("alignment") else None
        found.append({"text": "".join(target), "score": -0.31 - 0.4 * rank, "alignment": alignment})
    return found


def serve(app: FastAPI) -> Iterator[str]:
    """Serve an application in a thread; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    uvicorn.run(build_app(), port=int(sys.argv[1]) if len(sys.argv) > 1 else 8091, log_level="warning")
