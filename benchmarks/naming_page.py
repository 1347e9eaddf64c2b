"""How long the naming page takes to load in a headless Chromium, and how large it is.

    pip install playwright
    python benchmarks/naming_page.py site.unim2 --clusters 60 --modalities 5

The gallery is made of noise, which JPEG makes as large as it gets; the model only lends its
manifest. ``shown`` is when the first cluster's crops are all drawn, ``next`` how long it takes
from a key to the crops of the cluster after it. Each visit is a fresh browser context: nothing is
cached.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from unim2_core.data.pictures import Picture
from unim2_core.model.bundle import Bundle, Label
from unim2_core.model.relabelling import relabelled
from unim2_core.showing.naming.clusters import ClusterCounts, ClusterFacts
from unim2_core.showing.naming.gallery import SHOWN, Gallery
from unim2_core.showing.naming.server import NamingServer
from unim2_core.showing.naming.session import NamingSession
from unim2_core.showing.naming.spots import SpotFinder
from unim2_core.showing.palette import distinct_colors

SIZE = (240, 320)
STRIDE = 2
PICTURES = 24
DRAWN = """
Promise.all([...document.querySelectorAll('.tile, .thumb')].map((tile) => {
  const image = new Image();
  image.src = getComputedStyle(tile).backgroundImage.slice(5, -2);
  return image.decode();
})).then(() => performance.now())
"""


def session_of(bundle: Bundle, modalities: int) -> NamingSession:
    """A session on noise; every cluster is in every picture."""
    clusters = bundle.manifest.clusters
    rng = np.random.default_rng(0)
    height, width = SIZE[0] // STRIDE, SIZE[1] // STRIDE
    columns = int(np.ceil(np.sqrt(clusters * width / height)))
    rows = -(-clusters // columns)
    cells = np.arange(height)[:, None] * rows // height * columns
    classes = ((cells + np.arange(width) * columns // width) % clusters).astype(np.uint8)
    counts, finder = ClusterCounts(clusters), SpotFinder()
    for _ in range(PICTURES):
        confidence = rng.integers(0, 256, classes.shape).astype(np.uint8)
        counts.add(classes, confidence)
        finder.add(classes, confidence)
    names = tuple(f"modality {number}" for number in range(modalities))
    pictures = (
        Picture("", {name: rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8) for name in names})
        for _ in range(PICTURES)
    )
    chosen = finder.chosen(SHOWN)
    gallery = Gallery.cut(pictures, names, chosen, finder.classes, clusters)
    prototypes = rng.standard_normal((clusters, 32)).astype(np.float32)
    return NamingSession(bundle, gallery, ClusterFacts.of(counts, prototypes))


def visited(browser: Browser, url: str) -> tuple[float, float, float, int]:
    """Milliseconds to the list, to the first crops and to the next ones; bytes received."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        received: list[int] = []
        page.on("response", lambda answer: received.append(int(answer.headers["content-length"])))
        page.goto(url)
        page.wait_for_selector(".tile")
        listed = page.evaluate("performance.now()")
        shown = page.evaluate(DRAWN)
        total = sum(received)
        start = time.perf_counter()
        page.keyboard.press("j")
        page.evaluate(DRAWN)
        return listed, shown, 1e3 * (time.perf_counter() - start), total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model bundle, NAME.unim2; it is not changed")
    parser.add_argument("--clusters", type=int, default=60)
    parser.add_argument("--modalities", type=int, default=5)
    parser.add_argument("--visits", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(arguments.model, Path(folder) / "copy.unim2"))
        labels = tuple(
            Label(id=index, name=f"cluster {index}", color=color)
            for index, color in enumerate(distinct_colors(arguments.clusters))
        )
        bundle = relabelled(Bundle(copy), labels, {})
        start = time.perf_counter()
        session = session_of(bundle, arguments.modalities)
        made = time.perf_counter() - start
        with NamingServer(session) as server, sync_playwright() as playwright:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            rows = [visited(browser, server.url) for _ in range(arguments.visits)]
            browser.close()
            server.shutdown()
    every = sum(map(len, session.gallery.sheets.values())) + len(session.gallery.thumbs)
    table = Table(
        *("visits", "listed ms", "shown ms", "longest ms", "next ms", "loaded MB", "of MB"),
        title=f"{arguments.clusters} clusters, {arguments.modalities} modalities, {SHOWN} + "
        f"{SHOWN} crops each; crops found and cut in {made:.1f} s",
    )
    listed, shown, following, received = zip(*rows, strict=True)
    figures = (median(listed), median(shown), max(shown), median(following))
    table.add_row(
        str(len(rows)),
        *(f"{value:.0f}" for value in figures),
        *(f"{value / 1e6:.2f}" for value in (median(received), every)),
    )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
