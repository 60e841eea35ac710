"""The playground in headless Chromium, against a stand-in for the API that runs under the server's policies."""

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("playwright", reason="drives a browser by playwright")

from playground_steps import wait_for_end, write
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
MINUS = "\u2212"
Open = Callable[..., Page]


def read_colour(page: Page, selector: str) -> tuple[int, ...]:
    found = page.locator(selector).first.evaluate("node => getComputedStyle(node).backgroundColor")
    return tuple(int(float(part)) for part in re.findall(r"[\d.]+", found)[:3])


def test_tokens_stream_in_the_colours_of_their_probability(open_page: Open, address: str, app: Any) -> None:
    page = open_page(address)
    write(page, "slow: Once upon", max_tokens=30)
    page.locator(".token").nth(2).wait_for()
    assert page.locator(".token").count() < 30
    assert page.locator("#results").get_attribute("aria-busy") == "true"
    wait_for_end(page)
    assert page.locator(".token").count() == 30
    assert page.locator(".tokens").inner_text().startswith(" there was a little fox who lived")
    likely, unlikely = page.locator(".token.p10").first, page.locator(".token.p0").first
    assert read_colour(page, ".token.p10") != read_colour(page, ".token.p0")
    likely.hover()
    expect(page.locator(".chosen strong")).to_have_text("95.0 %")
    unlikely.hover()
    expect(page.locator(".chosen strong")).to_have_text("4.00 %")
    assert re.fullmatch(r"30 tokens · perplexity [\d.]+ · length limit", page.locator(".facts").inner_text())
    assert page.locator("#status").inner_text().startswith("30 tokens in ")
    assert app.state.requests[-1] | {"prompt": ""} == {
        "model": "stories",
        "prompt": "",
        "logprobs": 8,
        "max_tokens": 30,
        "seed": 0,
        "stream": True,
    }


def test_alternatives_by_pointer_and_keyboard(open_page: Open, address: str, app: Any) -> None:
    page = open_page(address)
    write(page, "Once upon", max_tokens=10)
    wait_for_end(page)
    panel = page.locator("#alternatives")
    token = page.locator(".token").nth(4)
    token.hover()
    expect(panel).to_be_visible()
    expect(panel.locator(".sampled code")).to_have_text("␣fox")
    assert panel.locator("li").count() == 5
    shown = [float(each.split()[0]) for each in panel.locator(".figure").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    page.locator("h1").hover()
    expect(panel).to_be_hidden()

    page.locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token").nth(1)).to_be_focused()
    expect(panel.locator(".sampled code")).to_have_text("␣was")
    assert page.locator(".token").nth(1).get_attribute("aria-describedby") == "alternatives"
    page.keyboard.press("End")
    expect(page.locator(".token").nth(9)).to_be_focused()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    page.get_by_role("button", name="there", exact=True).focus()
    page.keyboard.press("Space")
    expect(panel.locator("button").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".token").first).to_be_focused()
    expect(panel).to_be_hidden()

    # Another token in the place of one: the prompt gets the text before it.
    token.click()
    other = panel.locator("li button").first
    text = other.locator("code").inner_text().replace("␣", " ")
    other.click()
    wait_for_end(page)
    assert app.state.requests[-1]["prompt"] == f"Once upon there was a little{text}"


def test_stop_and_continue(open_page: Open, address: str, app: Any) -> None:
    page = open_page(address)
    before = app.state.cancelled
    write(page, "slow: Once", max_tokens=500)
    page.locator(".token").nth(3).wait_for()
    page.locator(".token").first.focus()
    for _ in range(2):  # Escape closes the alternatives; only the next one stops
        page.keyboard.press("Enter")
        expect(page.locator("#alternatives button").first).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#alternatives")).to_be_hidden()
        expect(page.locator("#stop")).to_be_enabled()
    page.keyboard.press("Escape")
    wait_for_end(page)
    assert page.locator(".facts").inner_text().endswith("stopped")
    assert page.locator("#status").inner_text().startswith("Stopped: ")
    for _ in range(100):
        if app.state.cancelled > before:
            break
        time.sleep(0.05)
    assert app.state.cancelled == before + 1
    text = page.locator(".tokens").inner_text()
    page.fill("#option-max_tokens", "5")
    page.get_by_role("button", name="Continue completion").click()
    expect(page.locator(".facts")).to_contain_text("5 tokens")
    wait_for_end(page)
    assert app.state.requests[-1]["prompt"] == "slow: Once" + text == page.input_value("#input")
    expect(page.locator("#results")).to_be_focused()


def test_several_completions_side_by_side(open_page: Open, address: str) -> None:
    page = open_page(address)
    write(page, "Once", n=3, max_tokens=12)
    wait_for_end(page, 3)
    places = [card.bounding_box() for card in page.locator(".card").all()]
    assert len({place["y"] for place in places if place}) == 1
    assert len({place["x"] for place in places if place}) == 3
    colours = [
        card.locator(".token").evaluate_all("all => all.map(each => each.className)")
        for card in page.locator(".card").all()
    ]
    assert [len(each) for each in colours] == [12, 12, 12]
    assert colours[0] != colours[1] != colours[2]
    page.get_by_role("button", name="Copy completion 2").click()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator(".tokens").nth(1).inner_text()


def test_a_link_reproduces_a_result(open_page: Open, address: str, app: Any) -> None:
    page = open_page(address)
    page.locator("summary", has_text="Stop strings").click()
    write(page, "Once & äöü #1\nupon", n=2, max_tokens=7, top_p=0.9, seed=41, stop="\\n\nthe end")
    wait_for_end(page, 2)
    page.click("#copy-link")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    fields = {name: value[0] for name, value in parse_qs(urlsplit(link).fragment).items()}
    expected = {"model": "stories", "prompt": "Once & äöü #1\nupon", "seed": "41", "temperature": "1", "top_p": "0.9"}
    assert fields.items() >= expected.items()
    first, text = app.state.requests[-1], page.locator("#results").inner_html()
    assert first["stop"] == ["\n", "the end"]

    other = open_page(link)
    expect(other.locator("#status")).to_contain_text("restored from the link")
    other.click("#run")
    wait_for_end(other, 2)
    assert app.state.requests[-1] == first
    assert other.locator("#results").inner_html() == text

    other.click("#reseed")
    wait_for_end(other, 2)
    assert app.state.requests[-1]["seed"] != 41
    other.click("#reset")
    assert other.input_value("#option-top_p") == ""
    assert other.input_value("#option-seed") == "0"


def test_translations_and_their_alignment(open_page: Open, address: str, app: Any) -> None:
    page = open_page(address)
    page.select_option("#model", "english-german")
    expect(page.locator("#input-label")).to_have_text("Source")
    write(page, "A dog runs through the snow .", n_best=3)
    wait_for_end(page)
    assert page.input_value("#option-beams") == "3"
    assert app.state.requests[-1] == {
        "model": "english-german",
        "source": "A dog runs through the snow .",
        "alignment": True,
        "beams": 3,
        "n_best": 3,
        "seed": 0,
    }
    candidates = page.locator("button.candidate")
    assert candidates.locator(".text").all_inner_texts()[0] == "Ein Hund läuft durch den Schnee."
    assert candidates.locator(".score").all_inner_texts() == [
        f"score {MINUS}{each}" for each in ("0.310", "0.710", "1.110")
    ]
    assert page.locator(".heat-map thead th").all_inner_texts() == ["A", "dog", "runs", "through", "the", "snow", "."]
    assert page.locator(".heat-map tbody th").all_inner_texts()[:2] == ["Ein", "Hund"]
    cell = page.locator(".heat-map tbody tr").nth(1).locator("td").nth(1)
    cell.hover()
    assert page.locator(".readout").inner_text() == f"Hund attends to dog with weight {cell.inner_text()}"
    weak = page.locator(".heat-map tbody tr").nth(1).locator("td").nth(6)
    opacity = "node => Number(getComputedStyle(node, '::before').opacity)"
    assert cell.evaluate(opacity) > 10 * weak.evaluate(opacity)
    grid = page.get_by_role("grid", name="Alignment: weight of each source token for each target token")
    assert grid.get_by_role("gridcell").count() == grid.locator("tbody td").count() == 49
    assert grid.get_by_role("columnheader").count() == grid.get_by_role("rowheader").count() == 7
    grid.locator("td[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".readout")).to_contain_text("Hund attends to A")
    candidates.nth(1).click()
    assert [each.get_attribute("aria-pressed") for each in candidates.all()] == ["false", "true", "false"]
    assert page.locator(".heat-map tbody tr").count() == 6

    write(page, "One line\n\nAnother line")
    wait_for_end(page, 2)
    assert app.state.requests[-1]["source"] == ["One line", "Another line"]
    expect(page.locator("#status")).to_contain_text("2 sources translated")


def test_a_model_without_alignment(open_page: Open, address: str, app: Any) -> None:
    page = open_page(address)
    page.select_option("#model", "unaligned")
    write(page, "A dog runs .")
    wait_for_end(page)
    assert "alignment" not in app.state.requests[-1]
    assert page.locator("button.candidate").count() == 1
    assert page.locator(".heat-map").count() == 0
    expect(page.locator("#error")).to_be_hidden()


def test_options_are_explained(open_page: Open, address: str) -> None:
    page = open_page(address)
    hint = page.locator("#option-n-hint")
    expect(page.locator("#option-n")).to_have_accessible_description(hint.inner_text())
    button = page.get_by_role("button", name="Explain options")
    for pressed, readable in (("true", True), ("false", False)):
        button.click()
        assert button.get_attribute("aria-pressed") == pressed
        box = hint.bounding_box()
        assert box
        assert (box["width"] > 100) == readable
    button.click()
    page.select_option("#model", "english-german")
    box = page.locator("#option-beams-hint").bounding_box()
    assert box
    assert box["width"] > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(open_page: Open, address: str, scheme: str) -> None:
    page = open_page(address, color_scheme=scheme)
    body = "body"
    system = read_colour(page, body)
    assert (sum(system) < 200) == (scheme == "dark")
    page.click("#theme")
    page.click("#theme")
    assert sum(read_colour(page, body)) < 200
    page.reload()
    assert sum(read_colour(page, body)) < 200
    assert page.locator("#theme").get_attribute("aria-label") == "Theme: dark"
    page.click("#theme")
    assert read_colour(page, body) == system


def test_a_phone_never_scrolls_sideways(open_page: Open, address: str) -> None:
    page = open_page(address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    width = "() => document.documentElement.scrollWidth"
    assert page.evaluate(width) == 390
    page.locator("#options-box > summary").tap()
    write(page, f"Once {'x' * 300}", n=2, max_tokens=20)
    wait_for_end(page, 2)
    assert page.evaluate(width) == 390
    page.locator(".token").nth(4).tap()
    panel = page.locator("#alternatives").bounding_box()
    assert panel
    assert panel["x"] >= 0
    assert panel["x"] + panel["width"] <= 390
    page.select_option("#model", "english-german")
    write(page, "word " * 40, n_best=3)
    wait_for_end(page)
    assert page.evaluate(width) == 390
    scrolled = page.locator(".scroll").evaluate("node => node.scrollWidth > node.clientWidth")
    assert scrolled
