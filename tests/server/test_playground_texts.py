"""The playground with hostile text, errors, keys, and tokens that are not texts by themselves, in headless Chromium."""

from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="drives a browser by playwright")
pytest.importorskip("fastapi", reason="serves a page by fastapi")

from playground_stand_in import HOSTILE, KEY
from playground_steps import wait_for_end, write
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
Open = Callable[..., Page]


def test_tokens_that_are_not_texts_by_themselves(open_page: Open, address: str) -> None:
    """A character of two tokens is one element; the end token is shown by its name and is not copied."""
    page = open_page(address)
    write(page, "bytes: Once", max_tokens=3)
    wait_for_end(page)
    assert page.locator(".token").all_inner_texts() == ["\u00fc", " was", " a", ""]
    assert page.locator(".tokens").evaluate("node => node.textContent") == "\u00fc was a"
    assert page.locator(".facts").inner_text().startswith("5 tokens ")
    page.locator(".token").first.hover()
    expect(page.locator(".chosen code")).to_have_text(["token 195", "token 188"])
    assert page.locator("#alternatives button").count() == 0
    page.locator(".token").last.hover()
    expect(page.locator(".chosen code")).to_have_text("<end>")
    assert page.locator(".token").last.evaluate("node => getComputedStyle(node, '::after').content") == '"<end>"'


def test_a_prompt_that_is_too_long_for_an_address(open_page: Open, address: str) -> None:
    page = open_page(f"{address}#model=stories&prompt=x")
    write(page, "x" * 200_000, max_tokens=3)
    wait_for_end(page)
    assert page.url == address


def test_a_link_to_a_model_that_is_not_served(open_page: Open, address: str) -> None:
    page = open_page(f"{address}#model=nobody&prompt=x")
    expect(page.locator("#error")).to_have_text(
        "The link names the model nobody, which is not served here: stories, english-german, unaligned."
    )


def test_text_of_a_model_is_never_markup(open_page: Open, address: str) -> None:
    page = open_page(address)
    write(page, "hostile", max_tokens=3)
    wait_for_end(page)
    assert page.locator(".tokens").inner_text().startswith(HOSTILE)
    page.locator(".token").first.hover()
    expect(page.locator(".sampled code")).to_have_text(HOSTILE)
    page.select_option("#model", "english-german")
    write(page, HOSTILE)
    wait_for_end(page)
    assert page.locator("h2.source").inner_text() == HOSTILE
    assert page.locator("main img").count() == 0
    assert page.title().startswith("Playground")


def test_errors_of_the_api_are_shown(open_page: Open, address: str) -> None:
    page = open_page(address, refused=400)
    write(page, "")
    expect(page.get_by_role("alert")).to_have_text("The prompt is empty; write at least one token.")
    assert page.locator(".card").count() == 0
    write(page, "Once", max_tokens=3)
    wait_for_end(page)
    expect(page.locator("#error")).to_be_hidden()
    page.fill("#option-max_tokens", "9999")
    page.click("#run")
    assert page.evaluate("document.activeElement.id") == "option-max_tokens"


def test_the_key_is_asked_for_and_kept_in_the_tab(open_page: Open, locked: str) -> None:
    page = open_page(locked, refused=401)
    expect(page.locator("#key")).to_be_focused()
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#error")).to_have_text("The API key is missing or wrong.")
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator("#key-form")).to_be_hidden()
    write(page, "Once", max_tokens=3)
    wait_for_end(page)
    assert KEY not in page.url
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    expect(page.locator("#run")).to_be_enabled()

    # A key that is no longer valid is asked for, then the request is repeated.
    page.evaluate("sessionStorage.setItem('lightning-xt.key', 'old')")
    write(page, "slow: Once", max_tokens=20)
    expect(page.locator("#key")).to_be_focused()
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_enabled()
    wait_for_end(page)
    assert page.locator(".token").count() == 20
