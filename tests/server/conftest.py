"""A browser for tests of the playground."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


# No longer than a module: while playwright runs, its event loop is that of this thread, and `asyncio.run` refuses.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return headless Chromium; the test is skipped if there is none."""
    name = "playwright.sync_api"
    playwright = pytest.importorskip(name, reason="drives a browser by playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("needs chromium on the PATH")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; at the end there are no messages in the console and no requests to other origins."""
    problems: list[str] = []
    contexts = []

    def start(url: str, *, refused: int | None = None, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        expected = f"status of {refused}"
        page.on("console", lambda each: None if expected in each.text else problems.append(each.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        origin = urlsplit(url).netloc
        page.on("request", lambda each: urlsplit(each.url).netloc == origin or problems.append(each.url))
        page.goto(url)
        return page

    yield start
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="session")
def app() -> Any:
    """Return the stand-in for the API."""
    pytest.importorskip("fastapi", reason="serves a page by fastapi")
    from playground_stand_in import build_app

    return build_app()


@pytest.fixture(scope="session")
def address(app: Any) -> Iterator[str]:
    """Return the address of the stand-in."""
    from playground_stand_in import serve

    yield from serve(app)


@pytest.fixture(scope="session")
def locked() -> Iterator[str]:
    """Return the address of a stand-in that needs a key."""
    from playground_stand_in import KEY, build_app, serve

    yield from serve(build_app(key=KEY))
