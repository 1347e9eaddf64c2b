"""The naming page in a real browser; skipped where playwright or Chromium is not installed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from browsing import UNNAMED, WIDTHS, Scheme, Visit
from naming_samples import session_on

from unim2_core.model.bundle import UNLABELLED, Bundle
from unim2_core.showing.naming.labelling import Hint
from unim2_core.showing.naming.server import NamingServer

pytestmark = pytest.mark.browser

SCRIPT = "<script>alert(1)</script>"
ELSEWHERE = "../unim2-was-here"
LISTED = "#list li .text:not(:empty)"
SENT = """
async ([url, size]) => {
  try {
    const edit = JSON.stringify({do: "unknown", cluster: 0});
    const body = size ? new Blob([new Uint8Array(size)]) : edit;
    const headers = {"Content-Type": "application/json"};
    return (await fetch(url, {method: "POST", headers, body})).status;
  } catch (error) {
    return error.name;
  }
}
"""


@pytest.fixture
def server(model_path: Path, tmp_path: Path) -> Iterator[NamingServer]:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    with NamingServer(session_on(Bundle(copy), hints={2: Hint("wall", 0.8, True)})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def names(visit: Visit) -> list[str]:
    """Of the classes, as the list shows them, by cluster."""
    shown = visit.page.evaluate("order.map((c, i) => [c, list.children[i].innerText])")
    return [text.splitlines()[0].strip() for _, text in sorted(shown)]


@pytest.fixture
def visit(browser: Any, server: NamingServer) -> Iterator[Visit]:
    visit = Visit(browser, server.url, until=LISTED)
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
    visit.expect("#name").to_be_focused()
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
    visit.expect("#facts").to_contain_text(f"Cluster {fourth}:")
    visit.press("u")
    visit.says("is unknown")
    visit.press("s")
    visit.says("Saved as version")
    saved = Bundle(server.session.bundle.path)
    assert saved.version in visit.page.inner_text("#status")
    table = saved.manifest.served
    assert [int(table[k]) for k in order] == [first, first, third, UNLABELLED]
    visit.page.reload()
    visit.page.wait_for_selector(LISTED)
    listed = names(visit)
    assert [listed[k] for k in (first, second, fourth)] == ["road", "road", "unknown"]
    assert visit.page.is_disabled("#save")


def test_a_script_in_a_name_is_text(visit: Visit) -> None:
    visit.press("Enter")
    visit.type(SCRIPT)
    visit.press("Enter")
    visit.says("is <script>")
    assert SCRIPT in names(visit)
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


def test_merging_can_be_left_by_key_and_by_touch(visit: Visit, server: NamingServer) -> None:
    before = server.session.state()
    visit.press("m", "Escape")
    visit.expect("#merge-dialog").to_be_hidden()
    visit.press("m")
    visit.page.focus("#merge-cancel")
    visit.press("Enter")
    visit.expect("#merge-dialog").to_be_hidden()
    visit.page.click("#merge")
    visit.page.click("#merge-cancel")
    visit.expect("#merge-dialog").to_be_hidden()
    assert server.session.state() == before


def test_a_name_is_taken_from_labels_with_one_key(visit: Visit) -> None:
    visit.page.evaluate("choose(2)")
    visit.expect("#hint").to_contain_text("wall (80.0 % of it)")
    visit.press("a")
    visit.says("Cluster 2 is wall.")
    visit.expect("#hint").to_be_hidden()


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


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of another page on this machine."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Empty) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{other.server_port}/"
        other.shutdown()
        thread.join()


def test_another_page_of_this_machine_changes_nothing(
    browser: Any, server: NamingServer, stranger: str
) -> None:
    before = server.session.state()
    visit = Visit(browser, stranger)
    # Even with the address, token and all, and with what a browser sends without asking first.
    edit = f"{server.url}edit"
    assert visit.page.evaluate(SENT, [edit, 0]) == "TypeError"
    plain = "url => fetch(url, {method: 'POST', mode: 'no-cors', body: '{}'}).catch(e => e.name)"
    assert visit.page.evaluate(plain, edit) == "TypeError"
    visit.page.set_content(f'<iframe src="{server.url}"></iframe>')
    visit.page.wait_for_timeout(100)
    assert all(frame.locator("#list li").count() == 0 for frame in visit.page.frames)
    assert server.session.state() == before
    visit.page.close()


def test_another_token_shows_nothing(browser: Any, server: NamingServer) -> None:
    visit = Visit(browser, server.url.replace(server.token, "0" * len(server.token)))
    assert "open the address that unim2 name printed" in visit.page.inner_text("body")
    assert visit.page.locator("#list").count() == 0
    visit.page.close()


def test_a_hundred_megabytes_are_not_read(visit: Visit, server: NamingServer) -> None:
    before = server.session.state()
    assert visit.page.evaluate(SENT, ["edit", 100_000_000]) in (413, "TypeError")
    visit.problems.clear()
    assert server.session.state() == before
    visit.press("u")
    visit.says("is unknown")


def test_a_path_in_a_name_is_text(visit: Visit, server: NamingServer) -> None:
    visit.press("Enter")
    visit.type(ELSEWHERE)
    visit.press("Enter")
    visit.says(f"is {ELSEWHERE}")
    visit.press("Escape", "s")
    visit.says("Saved as version")
    saved = Bundle(server.session.bundle.path)
    assert ELSEWHERE in [label.name for label in saved.manifest.labels]
    # Wherever in the bundle a file of that name were written, it would lie in it or beside it.
    assert not list(saved.path.parent.rglob("unim2-was-here*"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_everything_fits_and_has_a_name(
    browser: Any, server: NamingServer, width: str, scheme: Scheme
) -> None:
    visit = Visit(browser, server.url, width, scheme, LISTED)
    page = visit.page
    assert visit.fits()
    assert visit.is_dark() == (scheme == "dark")
    assert page.eval_on_selector_all("button, input", UNNAMED) == 0
    shown = "e => e.filter(t => t.offsetWidth && t.offsetWidth < 48).length"
    assert page.eval_on_selector_all(".tile", shown) == 0
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    assert visit.problems == []
    page.close()
