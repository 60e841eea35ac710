"""Steps of a visitor of the playground."""

from playwright.sync_api import Page, expect


def write(page: Page, text: str, **options: object) -> None:
    """Write a prompt and options, and generate."""
    page.fill("#input", text)
    for name, value in options.items():
        page.fill(f"#option-{name}", str(value))
    page.press("#input", "Control+Enter")


def wait_for_end(page: Page, cards: int = 1) -> None:
    """Wait until all results are complete."""
    expect(page.locator(".card")).to_have_count(cards)
    expect(page.locator("#stop")).to_be_disabled()
