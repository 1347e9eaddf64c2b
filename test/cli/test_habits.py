"""What holds for every command and every error text, as sets."""

from __future__ import annotations

import ast
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
import typer
from checkout import ROOT, needs_checkout
from rich.console import Console
from rich.progress import Progress
from scenes import write_bag
from typer.testing import CliRunner

from unim2_core.cli.console import _Rate
from unim2_core.cli.main import app, reported
from unim2_core.cli.reference import commands, examples

ERRORS = {"Unim2Error", "DecodeError", "BagError", "RigError", "ModelError", "DataError"}
SETTINGS = ("learning/", "model/segmenter.py")
"""Where a setting is out of range, what is expected says all that there is to do."""


COMMANDS = dict(commands())


def passes_on(command: click.Command) -> bool:
    """Whether a command hands options that it does not know to ROS."""
    return bool(command.context_settings.get("ignore_unknown_options"))


def test_the_set_is_whole():
    assert {"unim2 train", "unim2 doctor", "unim2 ros segment"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_whose_options_exist(name):
    command = COMMANDS[name]
    _, shown = examples(command)
    assert shown, f"{name} --help has no example"
    for words in map(shlex.split, shown):
        called = " ".join(words[: len(name.split())])
        assert called in COMMANDS, f"{name} --help shows {called}"
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        known = {option for part in COMMANDS[called].params for option in part.opts}
        known |= {o for part in COMMANDS[called].params for o in part.secondary_opts}
        assert passes_on(COMMANDS[called]) or given <= known, (
            f"{name} --help: {sorted(given - known)}"
        )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name):
    for part in COMMANDS[name].params:
        assert getattr(part, "help", None), f"{name}: {part.name}"


STRICT = [name for name, command in COMMANDS.items() if not passes_on(command)]


@pytest.mark.parametrize("name", STRICT)
def test_bad_usage_is_2(name):
    done = CliRunner().invoke(app, [*name.split()[1:], "--no-such-option"])
    assert done.exit_code == 2


def test_quiet_says_what_is_wrong_and_nothing_else(tmp_path):
    write_bag(tmp_path / "drive", 6)
    arguments = ["info", str(tmp_path / "drive"), "--json"]
    loud = CliRunner().invoke(app, [*arguments, str(tmp_path / "loud.json")])
    quiet = CliRunner().invoke(app, ["--quiet", *arguments, str(tmp_path / "quiet.json")])
    assert quiet.exit_code == 0 and not quiet.stdout and "reading" not in quiet.stderr
    assert (tmp_path / "quiet.json").read_text() == (tmp_path / "loud.json").read_text()
    failing = CliRunner().invoke(app, ["-q", "info", str(tmp_path / "none")])
    assert failing.exit_code == 1 and "error:" in failing.stderr
    # It is asked for anew by every call.
    assert "Topics" in loud.stdout
    assert "Topics" in CliRunner().invoke(app, arguments[:2]).stdout


def test_a_package_that_is_not_installed_is_named(capsys):
    def lacking(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    with pytest.raises(typer.Exit) as end:
        reported(lacking)("scipy")
    said = capsys.readouterr().err
    assert end.value.exit_code == 1 and "the Python package scipy" in said and "to do" in said
    with pytest.raises(ModuleNotFoundError):  # one of our own is a fault of ours
        reported(lacking)("unim2_core.absent")


def test_the_bar_shows_a_rate():
    bar = Progress(*[_Rate()], console=Console(file=io.StringIO()), auto_refresh=False)
    bar.add_task("reading", total=10)
    (task,) = bar.tasks
    assert str(_Rate().render(task)) == ""
    bar.start()
    for done in (1, 2, 3):
        bar.update(task.id, completed=done)
    bar.stop()
    assert str(_Rate().render(task)).endswith("/s")


RUN = "from unim2_core.cli.main import run; run()"


def test_a_shell_completes_commands():
    # What the shell asks of the program, see: unim2 --show-completion
    asked = {"_UNIM2_COMPLETE": "complete_bash", "COMP_WORDS": "unim2 s", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['unim2']; {RUN}"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"segment", "search"} == set(done.stdout.split())


def raised() -> Iterator[tuple[str, int, set[str | None]]]:
    """Where an error of the family is made, and what it is told."""
    for package in ("unim2_core", "unim2_ros"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                function = node.func if isinstance(node, ast.Call) else None
                if isinstance(function, ast.Name) and function.id in ERRORS:
                    place = path.relative_to(ROOT / package).as_posix()
                    yield place, node.lineno, {word.arg for word in node.keywords}


@needs_checkout
def test_every_error_says_what_was_expected_what_was_found_and_what_to_do():
    found = list(raised())
    assert len(found) > 100
    for path, line, told in found:
        needed = {"expected", "found"}
        if not path.startswith(SETTINGS):
            needed |= {"remedy"}
        assert needed <= told, f"{path}:{line} does not say: {sorted(needed - told)}"
