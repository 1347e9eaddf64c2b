"""The documentation as a site: strict, offline; pages made from code are current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT, needs_checkout

from unim2_core.cli import reference, reference_files

pytestmark = needs_checkout
FETCHED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//[^>]*>|<link[^>]*\shref=[\"']?(?:https?:)?//[^>]*>"
    r"|@import\s*(?:url\()?[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name, reason="the site is not built: pip install 'unim2[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site):
    pages = (ROOT / "docs").rglob("*.md")
    missing = [
        page.name
        for page in pages
        if not (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file()
    ]
    assert not missing


def test_a_page_of_the_site_fetches_nothing_from_elsewhere(site):
    fetched = [
        (path.name, found)
        for suffix in ("*.html", "*.css")
        for path in site.rglob(suffix)
        for found in FETCHED.findall(path.read_text(encoding="utf-8"))
    ]
    assert not fetched
    assert FETCHED.search('<script src="https://elsewhere.example/a.js"></script>')


def test_python_objects_are_described(site):
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="unim2_core.inference.pipeline.Pipeline"' in page
    assert "the rig lacks the model" in page


@pytest.mark.parametrize("made", [reference, reference_files], ids=lambda made: made.PAGE)
def test_a_page_that_is_made_from_code_is_current(made):
    written = (ROOT / made.PAGE).read_text(encoding="utf-8")
    assert written == made.reference(), f"python -m {made.__name__} > {made.PAGE}"


@pytest.mark.parametrize("model", [model for model, _ in reference_files.FILES.values()])
def test_every_key_of_a_file_says_what_it_is(model):
    schema = model.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for key, value in part["properties"].items():
            assert value.get("description"), f"{part['title']}.{key}"
