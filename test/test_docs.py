"""Documentation that holds: commands exist, the tutorial runs, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from checkout import ROOT, needs_checkout

from unim2_core.cli.main import app

pytestmark = needs_checkout
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(unim2 [a-z][^`]*)`")
SMALLER = ("--steps", "4", "--frames", "8", "--size", "48x64", "--backbone", "tiny")
"""What the test adds to a training, so that it takes seconds."""


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code of a page."""
    text = page.read_text(encoding="utf-8")
    return [code for found, code in BLOCK.findall(text) if found == language]


def lines(page: Path) -> Iterator[str]:
    """Every command of ours on a page: in blocks, and in sentences."""
    for code in blocks(page, "sh") + blocks(page, "console"):
        yield from (line.removeprefix("$ ") for line in code.splitlines())
    yield from INLINE.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))


OURS = [
    pytest.param(line, id=f"{page.stem}: {line[:60]}")
    for page in PAGES
    for line in lines(page)
    if line.startswith("unim2 ")
]


def test_there_are_pages_with_commands():
    assert TUTORIAL in PAGES
    assert len(OURS) > 15


@pytest.mark.parametrize("line", OURS)
def test_every_command_exists_with_its_options(line):
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while words and isinstance(command, typer.core.TyperGroup):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {name for part in command.params for name in (*part.opts, *part.secondary_opts)}
    given = {word for word in words if word.startswith("--")}
    assert given <= known, f"{line}: {sorted(given - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_it_stands(tmp_path):
    pytest.importorskip("torch", reason="making a model needs torch: pip install 'unim2[train]'")
    pytest.importorskip("rerun", reason="looking needs rerun: pip install 'unim2[view]'")
    from unim2_core.data.synthetic import DriveConfig, write_drive

    sensors = ("rgb", "depth", "thermal")
    drive = DriveConfig(duration_s=2.0, width=160, height=120, sensors=sensors)
    write_drive(tmp_path / "drive", drive, lambda *_: None)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "unim2"
    program.write_text(
        f"#!{sys.executable}\nfrom unim2_core.cli.main import run\nrun()\n", encoding="utf-8"
    )
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "UNIM2_CACHE": str(tmp_path / "cache"),
    }
    for code in blocks(TUTORIAL, "sh"):
        for line in code.splitlines():
            words = shlex.split(line)
            if words[:2] == ["unim2", "train"]:
                words += SMALLER
            done = subprocess.run(
                words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    for name in ("rig.yaml", "drive.rrd", "site.unim2", "segmented.mcap", "report.html"):
        assert (tmp_path / name).exists(), name
