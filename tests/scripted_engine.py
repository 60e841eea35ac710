"""Stand-in of the engine that sends scripted events, and clients of an application without a network."""

import asyncio
import json
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import httpx
import torch

from lightning_xt import Decoder, Encoder, EncoderDecoder
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.inference.serving.engine_load import EngineLoad
from lightning_xt.inference.serving.events import ErrorEvent, Event, JobEnd, Scores, SequenceEnd, TokenEvent
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.translation import Translator
from lightning_xt.server.application import build_app
from lightning_xt.server.served_model import ModelTable, ServedModel
from lightning_xt.server.server_context import ServerContext
from lightning_xt.server.server_metrics import ServerMetrics
from lightning_xt.server.server_settings import ServerSettings

ADDRESS = "http://127.0.0.1:8000"


class ScriptedEngine:
    """Engine whose jobs send given events, each from another thread; by default the bytes of a text."""

    def __init__(self, text: str = " fox", **options: Any) -> None:
        self.text, self.reason = text, options.pop("reason", "length")
        self.events: list[Event] | None = options.pop("events", None)
        self.refusal: Exception | None = options.pop("refusal", None)
        self.error: Exception | None = options.pop("error", None)
        self.jobs: list[Job] = []
        self.calls: list[tuple[str, Any, Any, dict[str, Any]]] = []
        self.hold = threading.Event()
        """Jobs end once it is set."""
        self.hold.set()
        self.cancelled = threading.Event()
        assert not options

    def complete(self, model, prompt, options, on_event, **others):
        return self._start("complete", (model, prompt, options, others), on_event, options.num_return_sequences)

    def translate(self, model, source, options, on_event, **others):
        return self._start("translate", (model, source, options, others), on_event, 1)

    def score(self, model, prompt, on_event, *, alternatives=0):
        values = [None, *(-0.5 for _ in prompt[1:])]
        others = [(), *(((token, -0.5), (0, -7.0))[:alternatives] for token in prompt[1:])]
        events = [Scores(list(prompt), values, others), JobEnd(len(prompt), 0)]
        return self._start("score", (model, prompt, None, {}), on_event, 1, events)

    def _start(self, kind, call, on_event, count, events: Sequence[Event] | None = None):
        self.calls.append((kind, *call[1:]))
        if self.refusal is not None:
            raise self.refusal
        job = Job(call[0], count, on_event, lambda job: self.cancelled.set() if job.outcome == "cancelled" else None)
        self.jobs.append(job)
        script = list(events or self.events or self._write(count, len(call[1])))
        threading.Thread(target=self._run, args=(job, script), daemon=True).start()
        return job

    def _write(self, count: int, prompt: int) -> list[Event]:
        tokens = list(self.text.encode())
        events: list[Event] = []
        for token in tokens:
            others = ((token, -0.25), (120, -2.0))
            events += [TokenEvent(number, token, -0.25, chr(token), others) for number in range(count)]
        events += [SequenceEnd(number, "", self.reason) for number in range(count)]
        return [*events, JobEnd(prompt, len(tokens) * count)]

    def _run(self, job: Job, events: list[Event]) -> None:
        for event in events[:2]:
            job.send(event)
        self.hold.wait()
        if self.error is not None:
            job.send(ErrorEvent(self.error))
        for event in events[2:]:
            job.send(event)

    alive = True

    def measure(self) -> dict[str, EngineLoad]:
        return {"tiny": EngineLoad(1, 2, 5, 3, 4, 6, 7, 8)}

    def drain(self, timeout=None) -> None:
        self.close()

    def close(self) -> None:
        self.hold.set()


def make_language_model(name: str = "tiny", **options: Any) -> ServedModel:
    completer = TextCompleter(Decoder(256, dim=16, depth=1), Bytes(), torch.device("cpu"))
    return ServedModel(name, completer, **options)


def make_translator(name: str = "pairs", **options: Any) -> ServedModel:
    parts = {"encoder": partial(Encoder, dim=16, depth=1), "decoder": partial(Decoder, dim=16, depth=1)}
    network = EncoderDecoder(259, 259, **parts)
    vocab = {"pad": 0, "start": 1, "end": 2}
    return ServedModel(name, Translator(network, SpecialBytes(), SpecialBytes(), vocab), **options)


def make_server(engine: Any = None, models: Sequence[ServedModel] = (), **settings: Any) -> "Client":
    """Return a client of an application."""
    engine = ScriptedEngine() if engine is None else engine
    table = ModelTable(models or [make_language_model()])
    context = ServerContext(engine, table, ServerSettings(**settings), ServerMetrics(engine.measure))
    return Client(context)


class Client:
    """Client of an application, in the process of the test."""

    def __init__(self, context: ServerContext) -> None:
        self.context, self.app = context, build_app(context)

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
                return await client.request(method, path, json=body, **options)

        return asyncio.run(run())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.request("POST", path, body, **options)

    def stream(self, path: str, body: Any) -> list[dict[str, Any]]:
        """Return the chunks of a streamed answer, which must end with [DONE]."""
        found = self.post(path, {**body, "stream": True})
        assert found.status_code == 200, found.text
        assert found.headers["content-type"].startswith("text/event-stream")
        *events, done, rest = found.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]
