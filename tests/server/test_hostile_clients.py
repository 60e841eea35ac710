"""Hostile clients of a server process: requests that break the published schema, and clients that leave."""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.slow

GROWTH = 8.0
"""MB that the server may grow by in a thousand refused requests after the first hundreds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, finished_pairs: Path) -> Iterator[Any]:
    """Serve an untrained language model, and a translator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from serving_processes import NAME, ServerProcess, make_run

        folder = tmp_path_factory.mktemp("served")
        checkpoint, _ = make_run(folder, dim=16, depth=1)
        runs = [f"{NAME}={checkpoint}", f"pairs={finished_pairs}/runs/pairs"]
        with ServerProcess.ours(runs, [], folder / "log", OMP_NUM_THREADS="1") as server:
            yield server
        assert server.process.returncode == 0, server.read_log()
        assert "Traceback" not in server.read_log()


def list_cases(schema: dict[str, Any], count: int) -> list[Any]:
    """Draw requests that break a schema, `count` of each operation that has a body."""
    import schemathesis

    cases: list[Any] = []
    for result in schemathesis.openapi.from_dict(schema).get_all_operations():
        operation = result.ok()
        if operation.method != "post":
            continue
        breaking = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

        @settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(breaking)
        def draw(case: Any) -> None:
            cases.append(case)

        draw()
    return cases


def read_memory(process: int) -> float:
    """Return the anonymous memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_thousand_requests_against_the_schema_are_refused_in_flat_memory(server: Any) -> None:
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        cases = list_cases(client.get("/openapi.json").json(), 500)
        assert len(cases) > 1400
        random.Random(0).shuffle(cases)
        for number, case in enumerate(cases):
            if number == 400:
                before = read_memory(server.process.pid)
            given = case.as_transport_kwargs(base_url=server.url)
            wanted = {key: given[key] for key in ("params", "headers", "cookies") if given.get(key)}
            body = {"json": given["json"]} if "json" in given else {"content": given.get("data")}
            found = client.request(case.method, case.formatted_path, **body, **wanted)
            assert 400 <= found.status_code < 500, (case, found.status_code, found.text)
            assert set(found.json()["error"]) == {"message", "type", "param", "code"}
            statuses[found.status_code] += 1
    assert statuses[400] > 1000, statuses
    assert read_memory(server.process.pid) - before < GROWTH


def test_200_clients_that_leave_in_the_middle_of_a_stream_leave_no_work(server: Any) -> None:
    from serving_clients import TIMEOUT, stream
    from serving_processes import describe_request

    async def leave(number: int) -> int:
        body = describe_request(server.model, f"client {number}", 3000, logprobs=1)
        async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT) as client:
            return len((await stream(client, body, events=1 + number % 5)).events)

    async def leave_all() -> list[int]:
        return await asyncio.gather(*(leave(number) for number in range(200)))

    began = time.monotonic()
    assert min(asyncio.run(leave_all())) >= 1
    end = time.monotonic() + 10
    while any((load := server.measure_jobs()).values()):
        assert time.monotonic() < end, load
        time.sleep(0.05)
    # The 600,000 tokens that they asked for take minutes.
    assert time.monotonic() - began < 60
    body = {"model": server.model, "prompt": "a", "max_tokens": 2}
    assert httpx.post(f"{server.url}/v1/completions", json=body).status_code == 200
