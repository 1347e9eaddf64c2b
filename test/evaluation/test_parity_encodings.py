from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unim2_core.evaluation.parity import Row
from unim2_core.evaluation.parity_encodings import datasets_rows, geometry_rows

Rows = Callable[[Path], Iterator[Row]]
READERS: dict[str, Rows] = {"geometry": geometry_rows, "datasets": datasets_rows}
INPUTS = {
    "geometry": set(),
    "datasets": {"res"}
    | {f"nyu/{name}" for name in ("rgb_upright", "hha", "label_raw")}
    | {f"mfnet/{name}" for name in ("rgba", "label_raw")}
    | {
        f"mcubes/{name}"
        for name in ("rgb16", "nir16", "aolp_sin", "aolp_cos", "dolp", "label_raw")
    },
}


@pytest.fixture(params=sorted(READERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def arrays(parity_dir: Path, name: str) -> dict[str, Any]:
    with np.load(parity_dir / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def failed(folder: Path, name: str, arrays: dict[str, Any]) -> set[str]:
    """Arrays that are out for a file with these arrays."""
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)
    return {array_of(row) for row in READERS[name](path) if not row.ok}


def array_of(row: Row) -> str:
    """Name of the array that a row is about."""
    return f"{row.case}/{row.compared.split(':')[0]}".lstrip("/")


def test_every_array_is_compared_and_equal(parity_dir: Path, name: str, arrays: Any) -> None:
    rows = list(READERS[name](parity_dir / f"{name}.npz"))
    assert {array_of(row) for row in rows} == set(arrays) - INPUTS[name]
    assert len(rows) == len(arrays) - len(INPUTS[name]) > 20
    for row in rows:
        assert row.ok, row
        assert row.file == f"{name}.npz"
        assert row.tolerance == (1e-6 if arrays[array_of(row)].dtype.kind == "f" else 0.0)


def test_every_compared_array_fails_when_one_value_is_altered(
    tmp_path: Path, name: str, arrays: Any
) -> None:
    for case in set(arrays) - INPUTS[name]:
        altered = arrays[case].copy()
        altered.flat[altered.size // 2] -= np.asarray(1, altered.dtype)  # 0 wraps to 255
        assert failed(tmp_path, name, {**arrays, case: altered}) == {case}


def test_every_input_matters(tmp_path: Path, name: str, arrays: Any) -> None:
    for case in INPUTS[name]:
        assert failed(tmp_path, name, {**arrays, case: arrays[case] // 2}), case
        left = {key: array for key, array in arrays.items() if key != case}
        assert failed(tmp_path, name, left), case


def test_unknown_arrays_and_shapes_fail(tmp_path: Path, name: str, arrays: Any) -> None:
    assert failed(tmp_path, name, {**arrays, "news": np.zeros(3)}) == {"news"}
    case = max(set(arrays) - INPUTS[name], key=lambda key: arrays[key].size)
    assert failed(tmp_path, name, {**arrays, case: arrays[case][:-1]}) == {case}
