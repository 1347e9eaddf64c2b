"""The naming page in a real browser; skipped where playwright or Chromium is not installed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from naming_samples import session_on

from unim2_core.model.bundle import UNLABELLED, Bundle
from unim2_core.showing.naming.labelling import Hint
from unim2_core.showing.naming.server import NamingServer

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the page is not tried: pip install playwright"
)
pytestmark = pytest.mark.slow

SCRIPT = "<script>alert(1)</script>"
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}


@pytest.fixture
def server(model_path: Path, tmp_path: Path) -> Iterator[NamingServer]:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    with NamingServer(session_on(Bundle(copy), hints={2: Hint("wall", 0.8, True)})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"the page is not tried: no Chromium ({error.message.splitlines()[0]})")
        yield browser
        browser.close()


class Visit:
    """The page, and everything that the browser complained about."""

    def __init__(self, browser: sync_api.Browser, url: str, width: str = "desktop") -> None:
        self.problems: list[str] = []
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        self.page = browser.new_page(viewport=size)
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.goto(url, wait_until="networkidle")

    def _dialog(self, dialog: sync_api.Dialog) -> None:
        if dialog.type != "beforeunload":
            self.problems.append(f"dialog: {dialog.message}")
        dialog.accept()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def says(self, text: str) -> None:
        sync_api.expect(self.page.locator("#status")).to_contain_text(text)

    def names(self) -> list[str]:
        """As the list shows them, by cluster."""
        shown = self.page.evaluate("order.map((c, i) => [c, list.children[i].innerText])")
        return [text.splitlines()[0].strip() for _, text in sorted(shown)]


@pytest.fixture
def visit(browser: sync_api.Browser, server: NamingServer) -> Iterator[Visit]:
    visit = Visit(browser, server.url)
    yield visit
    assert visit.problems == []
    visit.page.close()


def test_with_the_keyboard_alone_name_merge_undo_save_reload(
    visit: Visit, server: NamingServer
) -> None:
    order = visit.page.evaluate("order")
    first, second, third, fourth = order
    visit.press("Enter")
    visit.type("road")
    visit.press("Enter")  # goes on to the next one without a name, ready to type
    visit.says(f"Cluster {first} is road.")
    sync_api.expect(visit.page.locator("#name")).to_be_focused()
    visit.type("road")  # the same name is the same class
    visit.press("Enter")
    visit.says(f"as cluster {first}")
    visit.press("Escape", "m")
    visit.type(str(first))
    visit.press("ArrowDown", "Enter")
    visit.says(f"Cluster {third} is road now.")
    visit.press("z")
    visit.says("Undone.")
    assert server.session.edits.now.served[third] == third
    visit.press("y")
    visit.says("Done again.")
    visit.press("z")
    visit.says("Undone.")
    visit.press("j")
    sync_api.expect(visit.page.locator("#facts")).to_contain_text(f"Cluster {fourth}:")
    visit.press("u")
    visit.says("is unknown")
    visit.press("s")
    visit.says("Saved as version")
    saved = Bundle(server.session.bundle.path)
    assert saved.version in visit.page.inner_text("#status")
    table = saved.manifest.served
    assert [int(table[k]) for k in order] == [first, first, third, UNLABELLED]
    visit.page.reload(wait_until="networkidle")
    names = visit.names()
    assert [names[k] for k in (first, second, fourth)] == ["road", "road", "unknown"]
    assert visit.page.is_disabled("#save")


def test_a_script_in_a_name_is_text(visit: Visit) -> None:
    visit.press("Enter")
    visit.type(SCRIPT)
    visit.press("Enter")
    visit.says("is <script>")
    assert SCRIPT in visit.names()
    assert visit.page.evaluate("document.querySelectorAll('body script').length") == 0


def test_the_mouse_can_do_it_too(visit: Visit, server: NamingServer) -> None:
    visit.page.locator("#list button").nth(1).click()
    chosen = visit.page.evaluate("chosen")
    visit.page.fill("#name", "pole")
    visit.page.locator("#list button").nth(0).click()  # leaving the field keeps what was written
    visit.says(f"Cluster {chosen} is pole.")
    visit.page.locator("#list button").nth(1).click()
    visit.page.fill("#color", "#112233")
    visit.says("another colour")
    visit.page.click("#unknown")
    visit.says("is unknown")
    visit.page.click("#separate")
    visit.says("a class of its own")
    visit.page.click("#save")
    visit.says("Saved as version")
    labels = {label.id: label for label in Bundle(server.session.bundle.path).manifest.labels}
    assert (labels[chosen].name, labels[chosen].color) == ("pole", (0x11, 0x22, 0x33))


def test_a_name_is_taken_from_labels_with_one_key(visit: Visit) -> None:
    visit.page.evaluate("choose(2)")
    sync_api.expect(visit.page.locator("#hint")).to_contain_text("wall (80.0 % of it)")
    visit.press("a")
    visit.says("Cluster 2 is wall.")
    sync_api.expect(visit.page.locator("#hint")).to_be_hidden()


def test_an_error_of_the_server_is_shown(visit: Visit) -> None:
    visit.page.evaluate("nameIt('\\u202e')")
    visit.says("this is no name for a class")
    assert "alarm" in (visit.page.get_attribute("#status", "class") or "")
    assert all("409" in problem for problem in visit.problems)
    visit.problems.clear()  # the browser logs every answer that is no success


def test_a_server_that_is_gone_is_said(visit: Visit) -> None:
    visit.page.context.set_offline(True)
    visit.press("u")
    visit.says("is unim2 name still running?")
    visit.problems.clear()


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_fits_and_has_a_name(
    browser: sync_api.Browser, server: NamingServer, width: str
) -> None:
    visit = Visit(browser, server.url, width)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = (
        "e => e.filter(b => !(b.innerText || b.ariaLabel || b.labels?.[0]?.innerText)).length"
    )
    assert page.eval_on_selector_all("button, input", unnamed) == 0
    shown = "e => e.filter(t => t.offsetWidth && t.offsetWidth < 48).length"
    assert page.eval_on_selector_all(".tile", shown) == 0
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    assert visit.problems == []
    page.close()
