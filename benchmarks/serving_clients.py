"""Clients for the benchmarks of serving: concurrent streamed completions, and the times of their tokens."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

PATH = "/v1/completions"
HEADERS = {"Content-Type": "application/json"}
TIMEOUT = httpx.Timeout(600.0)


@dataclass
class Reply:
    """Answer of one client.

    Args:
        began: time at which the request was sent.
        events: data of the events, and the times at which they came.
    """

    began: float
    events: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def chunks(self) -> list[tuple[float, dict[str, Any]]]:
        """The events as JSON."""
        return [(when, json.loads(data)) for when, data in self.events if data != b"[DONE]"]

    @property
    def parts(self) -> list[tuple[float, str]]:
        """The parts of the text that are not empty."""
        found = []
        for when, chunk in self.chunks:
            if "error" in chunk:
                raise RuntimeError(f"the server answered: {chunk['error']}")
            text = "".join(choice["text"] for choice in chunk["choices"])
            if text:
                found.append((when, text))
        return found

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(text for _, text in self.parts)

    @property
    def gaps(self) -> list[tuple[str, float]]:
        """Each token with the distance of the two highest log-probabilities; needs `logprobs` of 2."""
        found = []
        for _, chunk in self.chunks:
            for choice in chunk["choices"]:
                entries = choice["logprobs"] or {"tokens": [], "top_logprobs": []}
                for token, best in zip(entries["tokens"], entries["top_logprobs"], strict=True):
                    first, second, *_ = sorted(best.values(), reverse=True)
                    found.append((token, first - second))
        return found


async def stream(client: httpx.AsyncClient, body: bytes, events: int | None = None) -> Reply:
    """Stream a completion; leave after this many events, if any are given."""
    reply, rest = Reply(time.perf_counter()), b""
    async with client.stream("POST", PATH, content=body, headers=HEADERS) as response:
        if response.status_code != 200:
            raise RuntimeError(f"the server answered {response.status_code}: {(await response.aread())[:500]!r}")
        async for part in response.aiter_raw():
            now = time.perf_counter()
            *whole, rest = (rest + part).split(b"\n\n")
            # JSON is read after the measurement.
            reply.events += [(now, event.removeprefix(b"data: ")) for event in whole if event.startswith(b"data: ")]
            if events is not None and len(reply.events) >= events:
                break
    return reply


async def stream_all(url: str, bodies: Sequence[bytes]) -> list[Reply]:
    """Stream completions at the same time, each by another client."""
    clients = [httpx.AsyncClient(base_url=url, timeout=TIMEOUT) for _ in bodies]
    try:
        # Connections are open before the measurement, as those of a client that stays.
        await asyncio.gather(*(client.get("/health") for client in clients))
        return await asyncio.gather(*(stream(client, body) for client, body in zip(clients, bodies, strict=True)))
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))


def run_clients(url: str, bodies: Sequence[bytes]) -> list[Reply]:
    """Stream completions at the same time, and return their answers."""
    return asyncio.run(stream_all(url, bodies))


@dataclass
class Load:
    """Measurements of one number of clients, over all repeats.

    Args:
        rates: tokens per second of each repeat.
        first: seconds from each request to its first token.
        between: seconds between the tokens of a completion.
    """

    rates: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)

    def add(self, replies: Sequence[Reply]) -> float:
        """Add a repeat, and return its tokens per second. A token is a character here."""
        parts = [reply.parts for reply in replies]
        if not all(parts):
            raise RuntimeError("a completion is empty")
        seconds = max(each[-1][0] for each in parts) - min(reply.began for reply in replies)
        rate = sum(len(text) for each in parts for _, text in each) / seconds
        self.rates.append(rate)
        for reply, each in zip(replies, parts, strict=True):
            self.first.append(each[0][0] - reply.began)
            for (before, _), (after, text) in itertools.pairwise(each):
                # Tokens that come together have no time between them.
                self.between += [after - before, *[0.0] * (len(text) - 1)]
        return rate

    def report(self) -> dict[str, Any]:
        """Return the percentiles in milliseconds."""
        return {
            "first_token_ms": percentiles(self.first),
            "between_tokens_ms": percentiles(self.between),
        }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    return {f"p{percent}": round(1e3 * percentile(seconds, percent), 2) for percent in (50, 99)}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that this percentage of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.nan
