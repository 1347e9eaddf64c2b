"""The command ``unim2``: every sub-command is a module beside this one."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Annotated, Any

import typer

from unim2_core import __version__
from unim2_core.cli import fleet, ros
from unim2_core.cli.console import console, errors, fail
from unim2_core.errors import Unim2Error

COMMANDS = {
    "demo": "unim2_core.cli.demo",
    "info": "unim2_core.cli.info",
    "rig": "unim2_core.cli.rig",
    "train": "unim2_core.cli.train",
    "pretrain": "unim2_core.cli.pretrain",
    "adapt": "unim2_core.cli.adapt",
    "history": "unim2_core.cli.history",
    "rollback": "unim2_core.cli.rollback",
    "search": "unim2_core.cli.search",
    "evaluate": "unim2_core.cli.evaluate",
    "import": "unim2_core.cli.import_checkpoint",
    "export": "unim2_core.cli.export",
    "segment": "unim2_core.cli.segment",
    "name": "unim2_core.cli.name",
    "bench": "unim2_core.cli.bench",
    "quantize": "unim2_core.cli.quantize",
    "report": "unim2_core.cli.report",
    "doctor": "unim2_core.cli.doctor",
    "view": "unim2_core.cli.view",
    "parity": "unim2_core.cli.parity",
}
INTERRUPTED = 130
"""Exit status after ctrl-C, as shells expect it."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"unim2 {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="unim2",
    help="Label-free segmentation for robots that carry more than one kind of camera.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Warnings and errors alone; see --json.")
    ] = False,
) -> None:
    console.quiet = quiet


def reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn an error that the user can mend into a message and exit status 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Unim2Error as error:
            fail(error)
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            if str(error.name).startswith(("unim2_core", "unim2_ros")):
                raise
            fail(_not_installed(str(error.name)))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            errors.print("interrupted; nothing was left half-written")
            raise typer.Exit(INTERRUPTED) from interrupt

    return run


def _not_installed(package: str) -> Unim2Error:
    return Unim2Error(
        "this needs more than what is installed",
        expected=f"the Python package {package}",
        found="none",
        remedy=f"pip install 'unim2[train,view]', or {package} alone",
    )


for _name, _module in COMMANDS.items():
    app.command(_name)(reported(importlib.import_module(_module).command))


for _command in fleet.app.registered_commands:
    assert _command.callback is not None
    _command.callback = reported(_command.callback)
app.add_typer(fleet.app, name="fleet")
app.add_typer(ros.app, name="ros")


def run() -> None:
    """Entry point of the command line."""
    app()


if __name__ == "__main__":
    run()
