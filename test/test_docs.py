"""Documentation that holds: commands exist, the tutorial runs, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from checkout import ROOT, needs_checkout

from unim2_core.cli.main import app

pytestmark = needs_checkout
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
TUTORIAL = ROOT / "docs" / "tutorial.md"
PYTHON = ROOT / "docs" / "reference" / "python.md"
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(unim2 .*)$", re.MULTILINE)
INLINE = re.compile(r"`(unim2 [a-z][^`]*)`")
SMALLER = ("--steps", "4", "--frames", "8", "--size", "48x64", "--backbone", "tiny")
"""What the test adds to a training, so that it takes seconds."""


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code of a page."""
    text = page.read_text(encoding="utf-8")
    return [code for found, code in BLOCK.findall(text) if found == language]


def shown(page: Path) -> Iterator[str]:
    """Every command of ours that stands in code: it is whole."""
    text = page.read_text(encoding="utf-8")
    for code in [code for _, code in BLOCK.findall(text)] + INDENTED.findall(text):
        for line in code.replace("\\\n", " ").splitlines():
            if (command := line.strip().removeprefix("$ ")).startswith("unim2 "):
                yield command


def named(page: Path) -> Iterator[str]:
    """Every command of ours in a sentence: what matters of it."""
    for command in INLINE.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "COMMAND" not in command:
            yield command


def cases(found: Callable[[Path], Iterator[str]]) -> list[Any]:
    """A test for each command; an equal one once."""
    first = {line: page for page in reversed(PAGES) for line in found(page)}
    return [pytest.param(line, id=f"{page.stem}: {line[:60]}") for line, page in first.items()]


def called(line: str) -> tuple[Any, list[str]]:
    """The command that a line calls, and what it is given."""
    command = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    if words[0] in ("--quiet", "-q"):
        del words[0]
    while words and isinstance(command, typer.core.TyperGroup):
        if words[0].startswith("--"):
            break
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    return command, words


def passes_on(command: Any) -> bool:
    """Whether it hands options that it does not know to ROS."""
    return bool(command.context_settings.get("ignore_unknown_options"))


def test_there_are_pages_with_commands():
    assert TUTORIAL in PAGES
    assert len(cases(shown)) > 40
    assert len(cases(named)) > 20


@pytest.mark.parametrize("line", cases(shown))
def test_every_command_in_code_is_one_that_is_understood(line):
    command, words = called(line)
    try:
        command.make_context(line, [word for word in words if word != "..."])
    except SystemExit as stop:  # --help, --version
        assert not stop.code
    except Exception as error:  # of the parser, which is typer's own in some versions
        if type(error).__name__ == "Exit":
            return
        raise AssertionError(f"{line}: {getattr(error, 'message', error)}") from error


@pytest.mark.parametrize("line", cases(named))
def test_every_command_in_a_sentence_exists_with_its_options(line):
    command, words = called(line)
    known = {name for part in command.params for name in (*part.opts, *part.secondary_opts)}
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    shells = {"--install-completion", "--show-completion"}
    assert passes_on(command) or given <= known | shells, f"{line}: {sorted(given - known)}"


def test_an_option_that_is_not_there_would_be_noticed():
    for line in ("unim2 info drive --jsn info.json", "unim2 segment drive --backend fpga"):
        with pytest.raises(AssertionError):
            test_every_command_in_code_is_one_that_is_understood(line)


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
    for code in blocks(PYTHON, "python"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and "(120, 160)" in done.stdout, f"{done.stdout}{done.stderr}"
    for name in ("rig.yaml", "drive.rrd", "site.unim2", "segmented.mcap", "report.html"):
        assert (tmp_path / name).exists(), name
