"""Our results against stored ones of the method's reference release, file by file.

A directory of golden files holds ``NAME.npz`` (arrays), or ``NAME.ckpt`` with what is expected of
it in ``NAME_expected.npz``. ``CHECKS`` says which module knows what to compute for which name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike

from unim2_core.errors import ModelError, Unim2Error

FORWARD = 2e-5
"""Tolerance of a forward pass in float32, relative to the largest value of the tensor."""
GRADIENT = 2e-3
"""Tolerance of a gradient in float32, relative to the largest value of the tensor."""
TRAINED = 2e-3
"""Tolerance of what depends on weights after steps of an optimiser, likewise."""
EXACT = 0.0
"""Tolerance where equal bytes are the only right answer."""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        file: name of the golden file.
        case: which case of the file.
        compared: which of its arrays.
        max_error: largest difference, relative to the largest expected value; see ``deviation``.
        tolerance: up to where the error is one of rounding.
        skipped: why nothing was compared; empty where it was.
    """

    file: str
    case: str
    compared: str
    max_error: float
    tolerance: float
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was compared and is within tolerance; NaN is not."""
        return not self.skipped and self.max_error <= self.tolerance

    @property
    def out(self) -> bool:
        """Whether it was compared and is not within tolerance."""
        return not self.skipped and not self.ok


def skipped(file: str, case: str, array: str, reason: str) -> Row:
    """A row that says aloud that an array is not compared, which does not count as passed."""
    return Row(file, case, array, float("nan"), EXACT, reason)


Check = Callable[[Path], Iterator[Row]]

CHECKS: Mapping[str, tuple[str, str]] = {
    "backbone_tiny": ("unim2_core.evaluation.parity_backbone", "tiny_rows"),
    "vit_*_rule": ("unim2_core.evaluation.parity_backbone", "rule_rows"),
    "geometry": ("unim2_core.evaluation.parity_encodings", "geometry_rows"),
    "datasets": ("unim2_core.evaluation.parity_encodings", "datasets_rows"),
    "head": ("unim2_core.evaluation.parity_head", "head_rows"),
    "cmcs": ("unim2_core.evaluation.parity_cmcs", "cmcs_rows"),
    "probes": ("unim2_core.evaluation.parity_probes", "probes_rows"),
    "metrics": ("unim2_core.evaluation.parity_metrics", "metrics_rows"),
    "eval_path": ("unim2_core.evaluation.parity_protocol", "protocol_rows"),
    "knn": ("unim2_core.evaluation.parity_neighbors", "neighbors_rows"),
    "train_*": ("unim2_core.evaluation.parity_training", "training_rows"),
    "tiny_lightning": ("unim2_core.evaluation.parity_release", "release_rows"),
}
"""Pattern of a golden file's name -> module and function that compare it, imported when needed."""


@dataclass(frozen=True)
class Report:
    """What was compared, and what could not be.

    Attributes:
        rows: every comparison.
        not_covered: names of the golden files that nothing here compares yet.
    """

    rows: tuple[Row, ...]
    not_covered: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every file is covered, and every comparison that was made within tolerance."""
        return not self.not_covered and not any(row.out for row in self.rows)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many comparisons passed, are out of tolerance, and were skipped."""
        passed, out = sum(row.ok for row in self.rows), sum(row.out for row in self.rows)
        return passed, out, len(self.rows) - passed - out


def deviation(found: ArrayLike, expected: ArrayLike) -> float:
    """Largest absolute difference, relative to the largest absolute value expected.

    Where only zeros are expected, the difference itself. Infinity where the shapes differ, NaN
    where a difference is not a number.
    """
    ours, theirs = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    scale = np.abs(theirs).max(initial=0.0) or 1.0
    return float(np.abs(ours - theirs).max(initial=0.0) / scale)


def compare(folder: Path, only: str | None = None) -> Report:
    """Run every check of every golden file.

    Args:
        folder: where the golden files are.
        only: name of one file to look at, with or without its suffix.

    Raises:
        ModelError: no golden file is there, or what a check needs is not installed.
    """
    files = golden_files(folder)
    if only is not None:
        name = Path(only).stem if Path(only).suffix in (".npz", ".ckpt") else only
        name = name.removesuffix("_expected")
        if name not in files:
            raise ModelError(
                f"{folder} has no golden file {only}",
                expected=f"one of {', '.join(files)}",
                found=only,
                remedy="check the spelling",
            )
        files = {name: files[name]}
    rows: list[Row] = []
    not_covered = []
    for name, path in files.items():
        check = _check(name)
        if check is None:
            not_covered.append(path.name)
        else:
            rows.extend(_rows(check, path))
    return Report(tuple(rows), tuple(not_covered))


def golden_files(folder: Path) -> dict[str, Path]:
    """Name -> file, in sorted order; a checkpoint stands for what is expected of it as well.

    Raises:
        ModelError: the folder is not there or has no golden file.
    """
    names: Iterable[Path] = sorted(folder.iterdir()) if folder.is_dir() else ()
    files = {path.stem: path for path in names if path.suffix in (".npz", ".ckpt")}
    files = {
        name: path
        for name, path in files.items()
        if not (name.endswith("_expected") and name.removesuffix("_expected") in files)
    }
    if not files:
        raise ModelError(
            f"no golden files in {folder}",
            expected="a directory of .npz files computed by the reference release",
            found="a directory without any" if folder.is_dir() else "no such directory",
            remedy="give the directory that holds backbone_tiny.npz",
        )
    return files


def _check(name: str) -> Check | None:
    for pattern, (module, function) in CHECKS.items():
        if fnmatchcase(name, pattern):
            try:
                check: Check = getattr(importlib.import_module(module), function)
            except ImportError as error:
                raise ModelError(
                    f"{name} cannot be compared with what is installed",
                    expected=f"that {module} can be imported",
                    found=str(error),
                    remedy="pip install 'unim2[train]'",
                ) from error
            return check
    return None


def _rows(check: Check, path: Path) -> Iterator[Row]:
    """The rows of one file; one that is damaged or laid out otherwise is a row that is out."""
    try:
        yield from check(path)
    except (Unim2Error, OSError, BadZipFile, KeyError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Row(path.name, "", f"not comparable: {reason}", float("inf"), EXACT)


def arrays_of(path: Path) -> dict[str, Any]:
    """All arrays of a golden file, by name; nothing is unpickled."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
