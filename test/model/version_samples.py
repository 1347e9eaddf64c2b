"""A bundle of a few numbers that gets versions; run as a program, it is killed while it does."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from unim2_core.model.bundle import (
    WEIGHTS,
    BackboneEntry,
    Bundle,
    Label,
    Manifest,
    ModalityEntry,
)
from unim2_core.model.versions import add_version, changing, go_back

KILLING = ("rename", "replace", "fsync", "mkdir", "open", "chmod")


def weights(number: int) -> dict[str, np.ndarray]:
    return {"mean": np.full(5, number, np.float32)}


def make_bundle(path: Path) -> Bundle:
    manifest = Manifest(
        name="small",
        reference="rgb",
        modalities=(ModalityEntry(name="rgb", sensor="rgb", encoding={}),),
        backbone=BackboneEntry(name="none", patch_size=8, embed_dim=5, sha256="", baseline=True),
        method="UniM2",
        infer_size=(16, 16),
        stride=2,
        labels=tuple(Label(id=i, name=f"cluster {i}", color=(i, i, i)) for i in range(2)),
    )

    def fill(folder: Path) -> tuple[Manifest, dict[str, np.ndarray]]:
        for name in ("backbone", "head"):
            (folder / f"onnx/{name}.onnx").write_bytes(name.encode())
        return manifest, {"images": np.zeros(3, np.uint8)}

    return Bundle.write(path, fill, weights(0))


def add(path: Path, event: str = "accepted", kept: int = 8) -> Bundle:
    """Add a version whose weights are its number."""
    with changing(path):
        bundle = Bundle(path)
        from unim2_core.model.versions import next_number

        number = next_number(path)

        def fill(folder: Path) -> None:
            save_file(weights(number), folder / WEIGHTS)
            np.savez_compressed(folder / "parity.npz", images=np.zeros(number, np.uint8))

        return add_version(bundle, event, bundle.manifest, fill, {"figure": 1.5}, kept)  # type: ignore[arg-type]


def killed_at(path: Path, call: int) -> None:
    """Add a version and go back, and be killed in the n-th call of the operating system."""
    count = 0

    def deadly(original):  # type: ignore[no-untyped-def]
        def function(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return function

    for name in KILLING:
        setattr(os, name, deadly(getattr(os, name)))
    add(path)
    with changing(path):
        go_back(path)


if __name__ == "__main__":
    killed_at(Path(sys.argv[1]), int(sys.argv[2]))
