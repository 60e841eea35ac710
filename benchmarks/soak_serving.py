"""Leaks of a server. Usage: python benchmarks/soak_serving.py [--seconds 600] [--clients 16] [--weights float32].

Starts `lightning-xt serve` with an untrained byte model. Clients send one request after another until the time is
over, each drawn from a mix: greedy and sampled completions, whole and streamed, of one or several sequences, with
log-probabilities, of lone prompts and of several, conversations, scores of prompts, invalid requests, and clients that
leave in the middle of a stream or before the answer. Meanwhile the server's anonymous memory, open files and threads
are counted twice a second. The first minute, or a fifth of a shorter time, is the warm-up.

What counts as flat, and two caches of libraries that are kept small, are those of `soak.py`; its steps are requests.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import httpx
import torch
from common import report, say
from serving_clients import HEADERS, PATH, TIMEOUT, stream
from serving_processes import NAME, PRINTABLE, ServerProcess, describe_request, end_servers_on_signal, make_run
from soak import EVERY, SMALL_CACHES, Look, count_resources, row

CHAT = "/v1/chat/completions"
WARM_UP = 60.0
"""Seconds."""
ENDS = 10.0
"""Seconds over which memory is averaged after the warm-up, and at the end."""
INVALID: list[tuple[str, bytes]] = [
    (PATH, b"{"),
    (PATH, b'{"prompt": 7}'),
    (PATH, b'{"prompt": "a", "max_tokens": 1e30}'),
    (PATH, b'{"prompt": "a", "temprature": 1}'),
    (PATH, b'{"prompt": "a", "model": "other"}'),
    (CHAT, b'{"messages": []}'),
]


class Mix:
    """One client's requests.

    Args:
        client: its connection.
        seed: of its draws.
        counts: of all clients, by what became of a request.
    """

    def __init__(self, client: httpx.AsyncClient, seed: int, counts: Counter[str]) -> None:
        self._client, self._draw, self._counts = client, Random(seed), counts

    async def run(self, end: float) -> None:
        """Send requests until a time."""
        kinds = (self._answer, self._stream, self._leave_stream, self._leave_early, self._send_invalid)
        while time.monotonic() < end:
            (kind,) = self._draw.choices(kinds, weights=(6, 6, 2, 1, 1))
            self._counts[await kind()] += 1

    def _prompt(self) -> str:
        return "".join(map(chr, self._draw.choices(PRINTABLE, k=self._draw.randint(1, 200))))

    def _body(self) -> tuple[str, dict[str, Any]]:
        """Draw the route and the body of a valid request."""
        draw = self._draw
        body: dict[str, Any] = {"model": NAME, "max_tokens": draw.randint(1, 64)}
        if draw.random() < 0.5:
            body |= {"temperature": 0}
        else:
            body |= {"temperature": 1.3, "top_p": 0.9, "n": draw.randint(1, 4), "seed": draw.randint(0, 99)}
        if draw.random() < 0.2:
            body |= {"stop": ["ab", "q"], "presence_penalty": 0.5, "logit_bias": {"65": 5}}
        if draw.random() < 0.3:
            return CHAT, body | {"messages": [{"role": "user", "content": self._prompt()}]}
        if draw.random() < 0.3:
            body |= {"logprobs": draw.randint(0, 5), "echo": draw.random() < 0.5}
        prompt: str | list[str] = [self._prompt(), self._prompt()] if draw.random() < 0.2 else self._prompt()
        return PATH, body | {"prompt": prompt}

    async def _answer(self) -> str:
        route, body = self._body()
        answer = await self._client.post(route, json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"{route} {body} was answered with {answer.status_code}: {answer.text}")
        return "answered"

    async def _stream(self) -> str:
        route, body = self._body()
        text = b""
        async with self._client.stream("POST", route, json=body | {"stream": True}) as answer:
            async for part in answer.aiter_raw():
                text = text[-100:] + part
        if not text.endswith(b"data: [DONE]\n\n"):
            raise RuntimeError(f"the stream of {route} {body} ended with {text[-500:]!r}")
        return "streamed"

    async def _leave_stream(self) -> str:
        body = describe_request(NAME, self._prompt(), 512)
        await stream(self._client, body, events=self._draw.randint(1, 5))
        return "left"

    async def _leave_early(self) -> str:
        body = describe_request(NAME, self._prompt(), 512, stream=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05 * self._draw.random()):
                await self._client.post(PATH, content=body, headers=HEADERS)
        return "left"

    async def _send_invalid(self) -> str:
        route, body = self._draw.choice(INVALID)
        answer = await self._client.post(route, content=body, headers=HEADERS)
        if not 400 <= answer.status_code < 500:
            raise RuntimeError(f"{body!r} was answered with {answer.status_code}")
        return "refused"


async def soak(server: ServerProcess, clients: int, seconds: float) -> tuple[list[Look], Counter[str]]:
    """Have clients send requests, and count the server's resources."""
    counts: Counter[str] = Counter()
    since, looks = time.monotonic(), []

    async def look() -> None:
        while True:
            looks.append(count_resources(server.process.pid, counts.total(), since))
            if len(looks) % 40 == 0:
                say(f"{looks[-1]}")
            await asyncio.sleep(EVERY)

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look())
        connections = [httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT) for _ in range(clients)]
        runs = [
            group.create_task(Mix(each, seed, counts).run(since + seconds)) for seed, each in enumerate(connections)
        ]
        await asyncio.gather(*runs)
        looking.cancel()
    for each in connections:
        await each.aclose()
    return looks, counts


def find_leftover(server: ServerProcess) -> dict[str, float]:
    """Return the jobs that are left after some seconds."""
    for _ in range(50):
        if not any((left := server.measure_jobs()).values()):
            break
        time.sleep(0.2)
    return left


def summarize(looks: list[Look], counts: Counter[str], left: dict[str, float]) -> dict[str, Any]:
    """Return the row of a soak."""
    seconds = looks[-1].seconds
    start = min(WARM_UP, seconds / 5)
    ends = min(ENDS, (seconds - start) / 2)
    first = [each.memory for each in looks if start <= each.seconds < start + ends]
    last = [each.memory for each in looks if each.seconds >= seconds - ends]
    found = row([each for each in looks if each.seconds >= start])
    found["requests"] = found.pop("steps")
    return found | {
        "after_warm_up_mb": round(mean(first), 1),
        "end_mb": round(mean(last), 1),
        "highest_mb": round(max(each.memory for each in looks), 1),
        "all_requests": dict(counts),
        "jobs_left": left,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--weights", default="float32", help="form of the weights")
    parser.add_argument("--compile", action="store_true", help="compile decode steps")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    end_servers_on_signal()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        checkpoint, _ = make_run(folder, options.dim, options.depth)
        given = ["--weights", options.weights] + (["--compile"] if options.compile else [])
        server = stack.enter_context(ServerProcess.ours(checkpoint, given, folder / "server.log", **SMALL_CACHES))
        looks, counts = asyncio.run(soak(server, options.clients, options.seconds))
        found = summarize(looks, counts, find_leftover(server))
        printed = server.read_log()
    say(printed)
    report({"soak": found}, "cpu", packages=())


if __name__ == "__main__":
    main()
