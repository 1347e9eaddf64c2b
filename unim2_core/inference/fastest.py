"""Which backend ``auto`` tries first: what was measured to be the fastest on this machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unim2_core.files import write_atomically
from unim2_core.inference.backends import LIBRARIES, Backend, Device, Precision
from unim2_core.inference.engine_store import EngineStore
from unim2_core.model.bundle import BACKBONE, Bundle

FILE = "fastest.json"
CPU_FACTS = Path("/proc/cpuinfo")


def in_order(
    bundle: Bundle, names: Sequence[Backend], precision: Precision, device: Device, threads: int
) -> list[Backend]:
    """Backends with those first that were measured to be faster here, the others as they are.

    What was measured on another machine, with other libraries or of another backbone counts for
    nothing.
    """
    try:
        content = json.loads(_file(bundle).read_text())
        known = content["facts"] == _facts(bundle, device, threads)
        measured = list(content["fastest"][precision]) if known else []
    except (OSError, ValueError, KeyError, TypeError):
        measured = []
    return [name for name in measured if name in names] + [
        name for name in names if name not in measured
    ]


def keep(
    bundle: Bundle, order: Mapping[str, Sequence[Backend]], device: Device, threads: int
) -> Path:
    """Keep what was measured; beside the engines of the model, or in the user's cache.

    Args:
        bundle: the model.
        order: precision -> the backends that can be used, the fastest first.
        device: that was asked for.
        threads: that were asked for.

    Returns:
        The file.

    Raises:
        Unim2Error: it cannot be written.
    """
    content = {
        "facts": _facts(bundle, device, threads),
        "fastest": {precision: list(names) for precision, names in order.items()},
    }
    path = _file(bundle)
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def processor() -> str:
    """Name of the processor."""
    try:
        lines = CPU_FACTS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _file(bundle: Bundle) -> Path:
    return EngineStore(bundle.path / BACKBONE).folder / FILE


def _facts(bundle: Bundle, device: Device, threads: int) -> Mapping[str, Any]:
    """All that decides which backend is the fastest; JSON types only."""
    return {
        "backbone": bundle.manifest.files[BACKBONE],
        "size": list(bundle.manifest.infer_size),
        "modalities": len(bundle.manifest.modalities),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "libraries": {name: _version(library.module) for name, library in LIBRARIES.items()},
        "device": device,
        "threads": threads,
    }


def _version(module: str) -> str | None:
    for name in (module, f"{module}-gpu", f"{module}-rtx"):  # distributions that bring it
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
