"""A server as a process: the playground in a browser and OpenAI's client, models of both kinds, and a clean end."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(
    finished: Path, finished_pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a language model and a translator; yield the process and its address."""
    pytest.importorskip("fastapi", reason="serves by fastapi")
    runs = [f"fox={finished / 'runs/tiny'}", f"pairs={finished_pairs / 'runs/pairs'}"]
    command = [sys.executable, "-m", "lightning_xt", "serve", *runs, "--port", "0"]
    log = tmp_path_factory.mktemp("server") / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout
        try:
            found = re.search(r"http://[\d.:]+", process.stdout.readline())
            assert found, log.read_text()
            yield process, found[0]
        finally:
            process.kill()


def test_a_visitor_of_a_server(server: tuple[Any, str], open_page: Callable[..., Any]) -> None:
    from playground_steps import wait_for_end, write

    process, address = server
    page = open_page(f"{address}/")
    page.locator("#run:enabled").wait_for()
    assert page.input_value("#option-temperature") == "1"
    assert page.locator("#option-temperature").get_attribute("max") == "100"
    write(page, "the quick", max_tokens=12, n=2, seed=3)
    wait_for_end(page, 2)
    assert page.locator(".facts").first.inner_text().startswith("12 tokens ")
    assert page.locator(".tokens").nth(0).inner_text() != page.locator(".tokens").nth(1).inner_text()
    page.locator(".token").nth(3).hover()
    assert page.locator("#alternatives li").count() >= 8
    assert "first after" in page.locator("#status").inner_text()

    # The API gives what the page shows.
    text = page.locator(".tokens").first.evaluate("node => node.textContent")
    openai = pytest.importorskip("openai", reason="is a client of the server")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
    stream = client.completions.create(model="fox", prompt="the quick", max_tokens=12, seed=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == text
    client.close()

    page.select_option("#model", "pairs")
    write(page, "a red dog runs", n_best=2, max_tokens=8)
    wait_for_end(page)
    assert page.locator("button.candidate").count() == 2
    heads = page.locator(".heat-map thead th").count()
    assert heads >= 2
    assert page.locator(".heat-map tbody td").count() == heads * page.locator(".heat-map tbody tr").count()
    page.get_by_role("link", name="API").click()
    page.get_by_role("heading", name="POST /v1/translations").wait_for()

    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
