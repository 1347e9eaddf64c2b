"""The reference page of the commands, from the commands themselves.

python -m unim2_core.cli.reference > docs/reference/commands.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from unim2_core.cli.main import app

PAGE = "docs/reference/commands.md"

_BETWEEN = re.compile(r", and then | && | Example: ")

_HEAD = """# Commands

Made by `python -m unim2_core.cli.reference`, from the commands themselves: do not edit.

`unim2 COMMAND --help` says the same. Exit status 0: done; 1: not done, with what was
expected, what was found and what to do; 2: bad usage; 130: ctrl-C.
`unim2 --quiet COMMAND` prints warnings and errors alone, `--json FILE` writes
results for machines.

"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command, by the words that call it."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(command, typer.core.TyperGroup):
            for word, part in command.commands.items():
                yield from below(f"{name} {word}", part)
        else:
            yield name, command

    yield from below("unim2", typer.main.get_command(app))


def examples(command: Any) -> tuple[str, list[str]]:
    """What a command's help says before its examples, and each of them as it is typed."""
    words, *given = (command.help or "").split("Example:")
    text = " Example: ".join(" ".join(part.replace("**", "").split()) for part in given)
    return words.strip(), [line for line in _BETWEEN.split(text) if line]


def reference() -> str:
    """The page, Markdown."""
    return _HEAD + "\n".join(section(name, command) for name, command in commands())


def section(name: str, command: Any) -> str:
    """What is said of a command; one that passes everything on to a node has its options there."""
    context = command.make_context(name, [], resilient_parsing=True)
    words, shown = examples(command)
    usage = " ".join(command.get_usage(context).removeprefix("Usage:").split())
    parts = [
        f"## {name}\n",
        words + "\n",
        "```sh\n" + "\n".join(shown) + "\n```\n",
    ]
    if not context.help_option_names:
        return "\n".join([*parts, f"[Options](node.md#{name.replace(' ', '-')})\n"])
    parts.append(f"Usage: `{usage}`\n")
    records = [part.get_help_record(context) for part in command.params]
    rows = [(f"`{names}`", meaning) for names, meaning in filter(None, records)]
    return "\n".join(parts) + ("\n" + table(("option", "meaning"), rows) if rows else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in line)} |\n"
        for line in lines
    )


if __name__ == "__main__":
    print(reference(), end="")
