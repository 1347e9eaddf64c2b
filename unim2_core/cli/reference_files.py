"""The reference page of the files that people write, from the models that read them.

python -m unim2_core.cli.reference_files > docs/reference/files.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from unim2_core.cli.reference import table
from unim2_core.data.folder_file import FolderFile
from unim2_core.learning.settings import Settings
from unim2_core.sensing.rig import Rig

PAGE = "docs/reference/files.md"
FILES: dict[str, tuple[type[BaseModel], str]] = {
    "Rig file": (
        Rig,
        "Which cameras a robot has. `unim2 rig` writes a first one; `config/rigs` has rigs of "
        "common cameras. Taken by `--rig`, and by the node's parameter `rig`.",
    ),
    "Images in folders": (
        FolderFile,
        "Which files are which modality. Files are paired in sorted order. Taken by `--data` of "
        "`unim2 train` and `unim2 evaluate`.",
    ),
    "Settings of a training": (
        Settings,
        "Numbers of the loss. Written by `unim2 search`, taken by `unim2 train --config`.",
    ),
}

_HEAD = """# Files

Made by `python -m unim2_core.cli.reference_files`, from the models that read them: do not edit.

All are YAML. A key that is unknown or out of range is refused; the message names it.
"""


def reference() -> str:
    """The page, Markdown."""
    return _HEAD + "".join(
        _file(name, model.model_json_schema(), words) for name, (model, words) in FILES.items()
    )


def _file(name: str, schema: Mapping[str, Any], words: str) -> str:
    sections = {"": schema}
    _find(schema, "", schema.get("$defs", {}), sections)
    parts = [f"\n## {name}\n\n{words}\n"]
    for place, part in sections.items():
        rows = [
            (f"`{key}`", *_says(key in part.get("required", ()), value))
            for key, value in part["properties"].items()
        ]
        heading = f"\n### {name}: `{place}`\n\n{_first(part)}\n" if place else ""
        parts.append(heading + "\n" + table(("key", "values", "default", "meaning"), rows))
    return "".join(parts)


def _find(
    part: Mapping[str, Any], place: str, known: Mapping[str, Any], found: dict[str, Any]
) -> None:
    """Add the sections below a part, by the path of keys that leads to them."""
    for key, value in part["properties"].items():
        for kind, suffix in ((value, ""), (value.get("additionalProperties"), ".NAME")):
            for one in _alternatives(kind):
                section = known.get(one.get("$ref", "").rpartition("/")[2])
                if section is not None:
                    path = f"{place}.{key}{suffix}".removeprefix(".")
                    found[path] = section
                    _find(section, path, known, found)


def _alternatives(value: Any) -> list[Mapping[str, Any]]:
    return value.get("anyOf", [value]) if isinstance(value, Mapping) else []


def _says(required: bool, value: Mapping[str, Any]) -> tuple[str, str, str]:
    default = value.get("default")
    nested = isinstance(default, Mapping)
    shown = "required" if required else "" if nested else f"`{json.dumps(default)}`"
    kinds = [_kind(one) for one in _alternatives(value) if one.get("type") != "null"]
    return " or ".join(kinds), shown, str(value.get("description", "")).replace("<", "&lt;")


def _kind(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return "keys, below"
    if "enum" in value or "const" in value:
        return ", ".join(map(str, value.get("enum", [value.get("const")])))
    if value.get("type") == "array":
        if "prefixItems" in value:
            first = _kind(value["prefixItems"][0])
            return f"{len(value['prefixItems'])} of: {first}"
        return f"list of: {_kind(value['items'])}"
    if value.get("type") == "object":
        return f"name: {_kind(value['additionalProperties'])}"
    words = {"string": "text", "boolean": "true, false"}.get(value["type"], str(value["type"]))
    least = value.get("minimum", value.get("exclusiveMinimum"))
    largest = value.get("maximum")
    if least is None:
        return words
    if largest is not None:
        return f"{words}, {least} to {largest}"
    return f"{words}, {'more than ' if 'exclusiveMinimum' in value else ''}{least}" + (
        "" if "exclusiveMinimum" in value else " or more"
    )


def _first(part: Mapping[str, Any]) -> str:
    return " ".join(part.get("description", "").split("\n\n")[0].split())


if __name__ == "__main__":
    print(reference(), end="")
