"""Visits to our pages in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, Literal

import pytest

WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
Scheme = Literal["light", "dark"]
UNNAMED = "e => e.filter(b => !(b.innerText || b.ariaLabel || b.labels?.[0]?.innerText)).length"
"""JavaScript: how many of the elements say nothing to somebody who does not see them."""


def chromium() -> Iterator[Any]:
    """An installed Chromium without a window; skips aloud where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the pages are not tried: pip install playwright"
    )
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("the pages are not tried: no Chromium on PATH (apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, and everything that the browser complained about or asked a server for."""

    def __init__(
        self,
        browser: Any,
        url: str,
        width: str = "desktop",
        scheme: Scheme = "light",
        until: str = "body",
    ) -> None:
        """Open it, and wait until something is there that a selector finds."""
        self.problems: list[str] = []
        self.asked: list[str] = []
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        self.page = browser.new_page(viewport=size, color_scheme=scheme)
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector(until, state="attached")

    def _dialog(self, dialog: Any) -> None:
        if dialog.type != "beforeunload":
            self.problems.append(f"dialog: {dialog.message}")
        dialog.accept()

    def press(self, *keys: str) -> None:
        """Type keys by their names."""
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        """Type a text."""
        self.page.keyboard.type(text)

    def expect(self, selector: str) -> Any:
        """An assertion on what a selector finds, that waits until it holds."""
        from playwright.sync_api import expect

        return expect(self.page.locator(selector))

    def says(self, text: str) -> None:
        """Wait for a text in the line that says what happened."""
        self.expect("#status").to_contain_text(text)

    def is_dark(self) -> bool:
        """Whether the page's background is darker than its text."""
        light = (
            "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name]"
            ".match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + +part, 0))"
        )
        background, text = self.page.evaluate(light)
        return bool(background < text)

    def fits(self) -> bool:
        """Whether nothing has to be moved sideways to be read."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
