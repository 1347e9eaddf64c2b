"""The model bundle: a directory ``NAME.unim2`` with all that a robot needs to segment.

``manifest.json`` says what the model is and holds the sha256 of every other file;
``weights.safetensors`` are the inputs of the head graph; ``onnx/`` holds both graphs;
``backbone.safetensors`` the weights of the frozen network, for torch;
``parity.npz`` an input and what the model must answer to it; ``training.safetensors``, where the
model was trained, all its weights to go on learning from, and ``memory.safetensors`` features of
what it was trained on. A model that was adapted has these four in ``versions/NNNN``, and the
manifest, which is replaced in one go, says in which: see ``versions``. No pickle, no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from unim2_core.errors import ModelError, cause
from unim2_core.files import cannot_write, sha256, synchronise

SUFFIX = ".unim2"
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
BACKBONE = "onnx/backbone.onnx"
HEAD = "onnx/head.onnx"
NETWORK = "backbone.safetensors"
TRAINING = "training.safetensors"
MEMORY = "memory.safetensors"
PARITY = "parity.npz"
UNLABELLED = 255
"""Class id of a place that has none."""
ENGINES = "engines"
"""What backends built of the graphs; not part of the model, and kept when it is replaced."""

Size = tuple[int, int]


def _inside(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"expected a file inside the bundle, found {name}")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModalityEntry(_Strict):
    """One modality of a model, in the order of the graph's first axis."""

    name: str
    sensor: str
    encoding: dict[str, Any] = Field(description="what Encoder.from_description takes")


class BackboneEntry(_Strict):
    """The frozen network that turns images into tokens."""

    name: str
    patch_size: int = Field(gt=0)
    embed_dim: int = Field(gt=0)
    sha256: str
    baseline: bool = Field(
        description="for trying: the small backbone of the package, or a part of it"
    )


class Label(_Strict):
    """What a class id means."""

    id: int = Field(ge=0, le=254)
    name: str
    color: tuple[int, int, int]


class Manifest(_Strict):
    """Everything about a model that is not an array."""

    format: Literal[1] = 1
    name: str
    reference: str
    modalities: tuple[ModalityEntry, ...] = Field(min_length=1)
    backbone: BackboneEntry
    method: str = Field(description="how the classes were learnt")
    infer_size: Size = Field(description="height and width that images are encoded at, pixels")
    stride: int = Field(gt=0, description="the head answers at one encoded pixel in stride")
    labels: tuple[Label, ...] = Field(min_length=1)
    served_as: dict[int, int] = Field(
        default_factory=dict,
        description="cluster -> class it is served as, 255 unlabelled; left out = its own number",
    )
    training: dict[str, Any] = Field(default_factory=dict)
    network: dict[str, Any] | None = Field(
        default=None, description="form of the network, where one was trained"
    )
    parent: str | None = Field(default=None, description="sha256 of the version before")
    number: int = Field(default=0, ge=0, description="of the version; 0 = as it was trained")
    folder: Annotated[str, AfterValidator(_inside)] = Field(
        default="", description="of this version's weights; the graphs are those of all versions"
    )
    labels_version: int = Field(
        default=0, ge=0, description="raised whenever the table of labels changes"
    )
    files: dict[Annotated[str, AfterValidator(_inside)], str] = Field(
        default_factory=dict, description="file -> sha256"
    )

    @model_validator(mode="after")
    def _served_classes_have_labels(self) -> Manifest:
        ids = {label.id for label in self.labels}
        if len(ids) != len(self.labels):
            raise ValueError("expected one label a class, found several")
        wrong = [
            f"{cluster}: {served}"
            for cluster, served in self.served_as.items()
            if not 0 <= cluster < UNLABELLED or cluster in ids or served not in {*ids, UNLABELLED}
        ]
        if wrong:
            raise ValueError(f"expected clusters served as labelled classes, found {wrong[0]}")
        return self

    def replaced(self, **values: Any) -> Manifest:
        """With other values, which are checked; ``model_copy`` would take any.

        Raises:
            ModelError: they do not go together.
        """
        try:
            return Manifest.model_validate(dict(self) | values)
        except ValidationError as error:
            raise ModelError(
                f"the model {self.name} cannot have these classes",
                expected="at least one class, each with one label, and clusters served as such",
                found=error.errors()[0]["msg"],
                remedy="leave at least one class that is not unknown; what is served stays served",
            ) from error

    @property
    def clusters(self) -> int:
        """How many clusters the network tells apart, before some are served as one class."""
        return 1 + max(*(label.id for label in self.labels), *self.served_as, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each cluster, all different where those of the classes are."""
        names = {label.id: label.name for label in self.labels}
        served = {
            cluster: f"cluster {cluster}, served as {names.get(into, 'unlabelled')}"
            for cluster, into in self.served_as.items()
        }
        return tuple((names | served).get(i, f"cluster {i}") for i in range(self.clusters))

    @property
    def served(self) -> NDArray[np.uint8]:
        """(256,) uint8: the class id that each cluster is served as."""
        table = np.arange(256, dtype=np.uint8)
        for cluster, into in self.served_as.items():
            table[cluster] = into
        return table

    @property
    def summary(self) -> str:
        """One line for logs and reports; a baseline is called one."""
        honest = " (for trying, not for a robot)"
        return (
            f"{self.name}: {self.method}, {len(self.labels)} classes, backbone "
            f"{self.backbone.name}{honest if self.backbone.baseline else ''}, "
            f"modalities {', '.join(entry.name for entry in self.modalities)}"
        )


class Bundle:
    """A model bundle on disk, checked when it is opened.

    Attributes:
        path: the directory.
        manifest: what the model is.
        sha256: of the manifest, and so of every file; tells versions of a model apart.
    """

    def __init__(self, path: Path) -> None:
        """Open a bundle and check every file against its sha256.

        Raises:
            ModelError: no bundle is there, or a file is missing, changed or unreadable.
        """
        self.path = path
        manifest = path / MANIFEST
        try:
            content = manifest.read_bytes()
        except OSError as error:
            raise ModelError(
                f"cannot open the model {path}",
                expected=f"a directory NAME{SUFFIX} with {MANIFEST}",
                found=f"a directory without {MANIFEST}" if path.is_dir() else cause(error),
                remedy="make one with: unim2 train --bag BAG --out NAME.unim2",
            ) from error
        try:
            self.manifest = Manifest.model_validate(json.loads(content))
        except (ValueError, ValidationError) as error:
            raise ModelError(
                f"{manifest} is not a manifest that this version reads",
                expected="format 1",
                found=str(error).splitlines()[0],
                remedy="train or export the model again, or install the version that wrote it",
            ) from error
        for name, expected in self.manifest.files.items():
            self._check(name, expected)
        self.sha256 = hashlib.sha256(content).hexdigest()

    @property
    def version(self) -> str:
        """The first digits of ``sha256``, for people."""
        return self.sha256[:12]

    def _check(self, name: str, expected: str) -> None:
        file = self.path / name
        found = sha256(file) if file.is_file() else "no such file"
        if found != expected:
            raise ModelError(
                f"the model {self.path} is damaged",
                expected=f"{name} with sha256 {expected[:12]}",
                found=found if file.is_file() is False else f"sha256 {found[:12]}",
                remedy="copy the bundle again, or train it again",
            )

    def file(self, name: str) -> Path:
        """Where a file of the served version is: ``WEIGHTS``, ``PARITY``, ``TRAINING``, ..."""
        return self.path / self.manifest.folder / name

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The inputs of the head graph other than tokens and presence."""
        try:
            return dict(load_file(self.file(WEIGHTS)))
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"cannot read the weights of {self.path}",
                expected="a safetensors file",
                found=str(error),
                remedy="copy the bundle again, or train it again",
            ) from error

    def parity(self) -> dict[str, NDArray[Any]]:
        """Stored inputs and outputs of the graphs."""
        with np.load(self.file(PARITY), allow_pickle=False) as arrays:
            return dict(arrays)

    @classmethod
    def write(
        cls,
        path: Path,
        fill: Callable[[Path], tuple[Manifest, Mapping[str, NDArray[Any]]]],
        weights: Mapping[str, NDArray[np.float32]],
        *,
        overwrite: bool = False,
    ) -> Bundle:
        """Write a bundle, whole or not at all.

        Args:
            path: the directory to make; its name should end in ``.unim2``.
            fill: called with the directory under construction to put both graphs there; returns
                the manifest, without ``files``, and the arrays of ``parity.npz``: ``images``,
                ``tokens`` and ``classes``.
            weights: name -> float32 array, the head graph's inputs.
            overwrite: replace a bundle of that name.

        Raises:
            ModelError: the path exists and is not to be, or may not be, replaced.
            Unim2Error: the disk is full or may not be written to.
        """
        check_place(path, overwrite)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            (draft / "onnx").mkdir()
            manifest, parity = fill(draft)
            save_file(dict(weights), draft / WEIGHTS)
            np.savez_compressed(draft / PARITY, **parity)  # type: ignore[arg-type]
            files = {
                str(file.relative_to(draft)): sha256(file)
                for file in sorted(draft.rglob("*"))
                if file.is_file()
            }
            manifest = manifest.model_copy(update={"files": files})
            (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
            draft.chmod(0o755)
            synchronise(draft)
            _swap(draft, path)
        except SafetensorError as error:  # how it says that the disk is full
            raise cannot_write(path, OSError(str(error))) from error
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)


def check_place(path: Path, overwrite: bool) -> None:
    """Refuse a path for a new bundle before any work is spent on it.

    Raises:
        ModelError: the path exists and is not to be, or may not be, replaced.
    """
    bundle = (path / MANIFEST).is_file()
    if path.exists() and not (overwrite and bundle):
        raise ModelError(
            f"{path} exists",
            expected="a model bundle to replace" if overwrite else "a path that is free",
            found="a model bundle" if bundle else "something else",
            remedy="choose another --out, or replace a bundle with --overwrite",
        )


def _swap(draft: Path, path: Path) -> None:
    if not path.exists():
        os.rename(draft, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    os.rename(path, old / "bundle")
    try:
        os.rename(draft, path)
    except OSError:
        os.rename(old / "bundle", path)
        old.rmdir()
        raise
    if (old / "bundle" / ENGINES).is_dir():  # found by what is in them: those that fit are used
        os.rename(old / "bundle" / ENGINES, path / ENGINES)
    shutil.rmtree(old, ignore_errors=True)
