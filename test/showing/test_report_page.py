"""The report in a real browser: offline, light and dark, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import WIDTHS, Scheme, Visit

pytest.importorskip("jinja2", reason="pip install 'unim2[view]'")
from report_samples import ROWS, whole_report

pytestmark = pytest.mark.browser
BROKEN = "e => e.filter(image => !image.complete || !image.naturalWidth).length"
HIDDEN = """
e => e.filter(part => {
  const box = part.getBoundingClientRect();
  return box.width && (box.left < -1 || box.right > innerWidth + 1) && !part.closest(".scroll");
}).length
"""
LEAST_CONTRAST = """
() => {
  const parts = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = colour => parts(colour).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/^rgba\\(.*, 0\\)$/.test(colour) && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return Math.min(...[...document.querySelectorAll("h1, h2, p, td, th, a, dt, dd, li, code")]
    .filter(e => e.offsetWidth && e.innerText.trim() && !e.closest(".confusion"))
    .map(e => [light(getComputedStyle(e).color), light(paper(e))])
    .map(([one, two]) => (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05)));
}
"""


@pytest.fixture(scope="module")
def path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_report(model_path, tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_can_be_read(browser: Any, path: Path, width: str, scheme: Scheme) -> None:
    visit = Visit(browser, path.as_uri(), width, scheme)
    page = visit.page
    assert visit.asked[0] == path.as_uri()
    assert all(url.startswith("data:image/") for url in visit.asked[1:])
    assert visit.fits()
    assert visit.is_dark() == (scheme == "dark")
    assert page.locator("img").count() > 3
    assert page.eval_on_selector_all("img", BROKEN) == 0
    assert page.eval_on_selector_all("main *", HIDDEN) == 0
    assert page.evaluate(LEAST_CONTRAST) > 4.5
    assert visit.problems == []
    page.close()


def test_with_the_keyboard_alone_to_a_section(browser: Any, path: Path) -> None:
    visit = Visit(browser, path.as_uri())
    for _ in range(9):
        visit.press("Tab")
    assert visit.page.evaluate("document.activeElement.innerText") == "Configuration"
    visit.press("Enter")
    top = visit.page.evaluate(
        "document.querySelector('#configuration').getBoundingClientRect().top"
    )
    assert -2 <= top < 200
    visit.page.close()


def test_a_class_that_is_called_like_a_script_is_text(browser: Any, path: Path) -> None:
    visit = Visit(browser, path.as_uri())
    assert f"<{ROWS}>" in visit.page.inner_text("#labels")
    assert visit.page.locator("script").count() == 0
    assert visit.problems == []
    visit.page.close()
