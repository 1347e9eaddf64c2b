"""``unim2 report``: one page, offline, whose texts stay texts."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_samples import ROWS, figures, report, whole_report, written
from scenes import HEIGHT, PERIOD_NS, START_NS, WIDTH, rgb_image

from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bag_writer import BagWriter

pytest.importorskip("jinja2", reason="pip install 'unim2[view]'")


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.fetched += [given[name] for name in ("src", "srcset", "data") if given.get(name)]
        self.links += [given["href"]] if given.get("href") else []
        self.ids += [given["id"]] if given.get("id") else []
        assert not any(name.startswith("on") for name in given), given

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page of everything, where a class is called like a script."""
    return Page(whole_report(model_path, tmp_path_factory.mktemp("report")).read_text())


def test_it_needs_no_network_and_runs_nothing(page: Page) -> None:
    assert page.fetched and all(source.startswith("data:image/") for source in page.fetched)
    assert not {"script", "iframe", "object", "link", "form"} & set(page.tags)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_a_name_that_is_a_script_is_shown_as_text(page: Page) -> None:
    assert f"<{ROWS}>" in page.text


def test_it_shows_what_was_measured(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)
    for expected in (
        *("50.0 %", "25.0 %", "without thermal", "30.0 %", "backbone", "12.5", "loss of rgb"),
        *("best drive", "worst drive", "mean confidence", "which is no quality", "2 trials"),
        *("for trying, not for a robot", "Python"),
    ):
        assert expected in text, expected
    assert page.tags.count("svg") >= 4


def test_ground_truth_of_a_drive_is_shown_where_there_is_one(
    model_path: Path, tmp_path: Path
) -> None:
    with BagWriter(tmp_path / "drive") as writer:
        for index in range(3):
            stamp = START_NS + index * PERIOD_NS
            truth = np.zeros((HEIGHT, WIDTH), np.uint8)
            truth[HEIGHT // 2 :] = 1
            for topic, pixels, encoding in (
                ("/rgb/image", rgb_image(index), "rgb8"),
                ("/ground_truth/label", truth, "mono8"),
            ):
                message = image_message(pixels, encoding, stamp, "camera")
                writer.write(topic, message, stamp)
    out = tmp_path / "report.html"
    status, output = report(model_path, "--bag", tmp_path / "drive", "--out", out)
    assert status == 0, output
    text = Page(out.read_text()).text
    assert "by mean IoU" in text and "truth" in text


def test_what_is_not_known_names_the_command(model_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    status, output = report(model_path, "--out", out)
    assert status == 0, output
    text = Page(out.read_text()).text
    for command in ("evaluate", "bench", "segment", "info", "report", "train"):
        assert f"unim2 {command}" in text


def test_a_run_without_a_model_has_its_curves(tmp_path: Path) -> None:
    (tmp_path / "a.run").mkdir()
    line = {"step": 3, "scalars": {"loss/total": 0.5, "loss/own": None}}
    (tmp_path / "a.run" / "history.jsonl").write_text(json.dumps(line) + "\n")
    status, output = report(tmp_path / "a.run", "--out", tmp_path / "report.html")
    assert status == 0, output
    assert "a run without a model yet" in (tmp_path / "report.html").read_text()


def test_figures_of_another_version_are_marked(model_path: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "figures.json", figures("another"))
    status, output = report(model_path, "--figures", file, "--out", tmp_path / "r.html")
    assert status == 0
    assert "are of version another" in output
    assert "are of version another" in (tmp_path / "r.html").read_text()


def test_without_the_library_the_way_to_it_is_named(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    status, output = report(model_path, "--out", tmp_path / "r.html")
    assert status == 1
    assert "pip install jinja2" in output


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["absent", "--out", "r.html"], 1, "neither a model nor the directory of a run"),
        (["absent.unim2", "--out", "r.html"], 1, "cannot open the model absent.unim2"),
        (["MODEL", "--out", "r.pdf"], 2, "ending in .html"),
        (["MODEL", "--figures", "OTHER", "--out", "r.html"], 1, "cannot be shown in a report"),
        (["MODEL", "--figures", "absent", "--out", "r.html"], 1, "cannot be shown in a report"),
        (["MODEL", "--run", "absent", "--out", "r.html"], 1, "directory of a run"),
        (["MODEL", "--bag", "b", "--data", "d", "--out", "r.html"], 2, "found both"),
    ],
)
def test_bad_usage_is_explained(
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": model_path, "OTHER": written(tmp_path / "other.json", {"a": 1})}
    found, output = report(*(names.get(argument, argument) for argument in arguments))
    assert found == status, output
    assert said in output
    assert not (tmp_path / "r.html").exists()
