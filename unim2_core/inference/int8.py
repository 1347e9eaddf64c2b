"""The int8 graphs of a bundle: kept beside it, never run for another backbone than its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from unim2_core.errors import ModelError
from unim2_core.files import cannot_write, sha256, synchronise
from unim2_core.inference.parity import Parity
from unim2_core.model.bundle import BACKBONE, ENGINES

Quantized = Literal["openvino", "onnxruntime"]
"""The backends that run one, each its own."""
FILES: Mapping[Quantized, tuple[str, ...]] = {
    "openvino": ("backbone.xml", "backbone.bin"),
    "onnxruntime": ("backbone.onnx",),
}
"""The first of them is the graph."""
FACTS = "calibration.json"
TO_DO = "make one from a drive of yours: unim2 quantize BAG --model NAME.unim2 --backend {}"


class Calibration(BaseModel):
    """How an int8 graph came about, and how far it is from float32.

    Attributes:
        backbone: sha256 of the graph that was quantized.
        files: of the int8 graph, file -> sha256.
        bag: name of the drive that the images are from.
        calibrated: frame sets that ranges were taken from.
        held_out: other frame sets, that the figures were measured on.
        token_cosine: smallest of all their tokens.
        max_error: largest of all numbers of their tokens.
        agreement: share of their pixels with the class that float32 gives.
        versions: library -> version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    files: dict[str, str]
    bag: str
    calibrated: int
    held_out: int
    token_cosine: float
    max_error: float
    agreement: float
    versions: dict[str, str]

    @property
    def parity(self) -> Parity:
        """The figures as those of any engine."""
        return Parity(self.token_cosine, self.max_error, self.agreement)


def folder_of(backend: Quantized) -> str:
    """Where a bundle has the int8 graph of a backend."""
    return f"{ENGINES}/int8-{backend}"


def int8_graph(path: Path, backend: Quantized) -> Path:
    """The int8 graph that stands for a backbone's.

    Args:
        path: the backbone's graph inside its bundle.
        backend: that is to run it.

    Raises:
        ModelError: there is none, it is damaged, or made from another backbone.
    """
    folder = bundle_of(path) / folder_of(backend)
    try:
        facts = Calibration.model_validate_json((folder / FACTS).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"this model has no int8 graph for {backend}",
            expected=f"{folder / FACTS}",
            found="nothing" if isinstance(error, OSError) else str(error).splitlines()[0],
            remedy=TO_DO.format(backend),
        ) from error
    wanted = {"the backbone": (path, facts.backbone)}
    wanted |= {name: (folder / name, digest) for name, digest in facts.files.items()}
    for name, (file, digest) in wanted.items():
        found = sha256(file) if file.is_file() else "no such file"
        if found != digest:
            raise ModelError(
                f"the int8 graph in {folder} does not fit this model",
                expected=f"{name} with sha256 {digest[:12]}",
                found=found[:12],
                remedy=TO_DO.format(backend),
            )
    return folder / FILES[backend][0]


def write_int8(
    bundle: Path,
    backend: Quantized,
    fill: Callable[[Path], Calibration],
    keep: Callable[[Calibration], bool],
) -> Calibration:
    """Put an int8 graph into a bundle, whole or not at all; one that was there is replaced.

    Args:
        bundle: its directory.
        backend: that is to run it.
        fill: called with an empty directory for the files of the graph.
        keep: whether the graph is good enough; otherwise nothing changes.

    Raises:
        Unim2Error: the bundle cannot be written to.
    """
    place = bundle / folder_of(backend)
    try:
        place.parent.mkdir(exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise cannot_write(place, error) from error
    try:
        facts = fill(draft)
        if keep(facts):
            (draft / FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
            draft.chmod(0o755)
            synchronise(draft)
            shutil.rmtree(place, ignore_errors=True)  # an engine that runs has read its files
            os.rename(draft, place)
        return facts
    except OSError as error:
        raise cannot_write(place, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def bundle_of(graph: Path) -> Path:
    """The directory of the bundle that a graph lies in."""
    return graph.parents[len(Path(BACKBONE).parts) - 1]
