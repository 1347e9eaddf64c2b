"""What ``unim2 info`` shows of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, write_json
from unim2_core.model.bundle import MANIFEST, SUFFIX, Bundle


def is_model(path: Path) -> bool:
    """Whether a path is meant to be a model bundle."""
    return path.suffix == SUFFIX or (path / MANIFEST).is_file()


def show_model(path: Path, json: Path | None) -> None:
    """Print what a model looks at and what it tells apart.

    Args:
        path: of the bundle; all its files are checked.
        json: file for the same facts.

    Raises:
        ModelError: it cannot be opened, or is damaged.
    """
    bundle = Bundle(path)
    manifest = bundle.manifest
    height, width = manifest.infer_size
    megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    console.print(f"[bold]{escape(str(path))}[/]: {escape(manifest.summary)}")
    console.print(
        f"version {manifest.number} ({bundle.version}), {megabytes:.1f} MB with what it keeps; an "
        f"answer for each image of {manifest.reference}, seen at {width}x{height}"
    )
    looks = Table("modality", "sensor", "encoding", title="Looks at", title_justify="left")
    for entry in manifest.modalities:
        looks.add_row(entry.name, entry.sensor, escape(_encoding(entry.encoding)))
    console.print(looks)
    classes = Table("id", "name", "colour", title="Tells apart", title_justify="left")
    for label in manifest.labels:
        red, green, blue = label.color
        swatch = f"[on rgb({red},{green},{blue})]    [/] #{red:02x}{green:02x}{blue:02x}"
        classes.add_row(str(label.id), escape(label.name), swatch)
    console.print(classes)
    if json is not None:
        facts = {"model": str(path), "sha256": bundle.sha256, "bytes": round(1e6 * megabytes)}
        write_json(json, {**facts, "manifest": manifest.model_dump(mode="json")})


def _encoding(description: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in description.items() if key != "modality"}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
