from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_samples import CLASSES, PATCH, Means, Pictures

from unim2_core.data.views import Cropped, Kept, Mirrored, cropped_map, middle
from unim2_core.sensing.warping import GridMap, gather

ENCODINGS = {name: {"modality": name, "preset": "robot"} for name in ("rgb", "thermal", "aolp")}
SIZE = (4 * PATCH, 6 * PATCH)


def _source(**changes: object) -> Pictures:
    return Pictures(encodings=ENCODINGS, size=SIZE, label_size=SIZE, **changes)  # type: ignore[arg-type]


def _grid_map(seed: int, grid: tuple[int, int]) -> GridMap:
    """Anywhere in the grid, some places hidden."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-0.5, np.array([grid[1], grid[0]]) - 0.5, (*grid, 2))
    return GridMap.within(places.astype(np.float32), rng.random(grid) < 0.8, grid)


def test_only_the_rows_that_were_asked_for_are_seen_and_the_rest_is_not_read() -> None:
    source = _source()
    view = Mirrored(source, [1, 4])
    assert view.limit == 2
    assert [picture.name for picture in view] == ["picture 1 mirrored", "picture 4 mirrored"]
    assert source.decoded == 5
    assert (view.modalities, view.size, view.label_size, view.classes) == (
        source.modalities,
        SIZE,
        SIZE,
        CLASSES,
    )
    assert list(Mirrored(source, [])) == []


def test_kept_pictures_are_decoded_once() -> None:
    source = _source()
    kept = Kept(source, range(8, 12))
    assert kept.limit == 2  # the source has ten
    for _ in range(2):
        assert [picture.name for picture in kept] == ["picture 8", "picture 9"]
    assert source.decoded == 10
    assert kept.fingerprint() != Kept(source, range(8, 11)).fingerprint()


def test_a_mirrored_picture_has_all_its_parts_swapped() -> None:
    source = _source()
    (seen,) = Mirrored(source, [3])
    whole = source.picture(3)
    for name in whole.images:
        np.testing.assert_array_equal(seen.images[name], whole.images[name][:, ::-1])
    np.testing.assert_array_equal(seen.valid["thermal"], whole.valid["thermal"][:, ::-1])
    assert (seen.source, seen.sequence, seen.stamp_ns) == (0, 0, 300)
    (labelled,) = Mirrored(source, [4])
    assert labelled.labels is not None
    np.testing.assert_array_equal(labelled.labels, source.picture(4).labels[:, ::-1])  # type: ignore[index]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_gathered_in_crops_is_a_crop_of_what_is_gathered(seed: int) -> None:
    grid = (16, 20)
    cells = middle(grid)
    inner = (8, 10)
    tokens = np.random.default_rng(seed).normal(size=(*grid, 3)).astype(np.float32)
    grid_map = _grid_map(seed, grid)
    expected, valid = (part[cells] for part in gather(tokens, grid_map))
    found, seen = gather(tokens[cells], cropped_map(grid_map, cells))
    # Places whose four neighbours are all in the sensor's crop are the same; those outside are
    # not seen; those between have fewer neighbours.
    column, row = (grid_map.coordinates[cells] - [cells[1].start, cells[0].start]).transpose(
        2, 0, 1
    )
    well_inside = (
        (column >= 0) & (column <= inner[1] - 1) & (row >= 0) & (row <= inner[0] - 1) & valid
    )
    outside = (column < -0.5) | (column > inner[1] - 0.5) | (row < -0.5) | (row > inner[0] - 0.5)
    assert well_inside.any()
    np.testing.assert_array_equal(seen, valid & ~outside)
    np.testing.assert_allclose(found[well_inside], expected[well_inside], atol=1e-5)


@pytest.mark.parametrize(
    ("grid", "rows", "columns"),
    [((14, 14), (3, 10), (3, 10)), ((15, 20), (4, 11), (5, 15)), ((1, 3), (0, 1), (1, 2))],
)
def test_the_middle_of_a_grid(
    grid: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    assert middle(grid) == (slice(*rows), slice(*columns))


def test_a_cropped_picture_is_its_middle_without_labels() -> None:
    source = _source()
    view = Cropped(source, [0, 3], PATCH)
    assert view.size == (2 * PATCH, 3 * PATCH)
    assert view.label_size is None
    assert view.classes is None
    first, second = view
    rows, columns = slice(PATCH, 3 * PATCH), slice(PATCH, 4 * PATCH)
    np.testing.assert_array_equal(
        first.images["rgb"], source.picture(0).images["rgb"][rows, columns]
    )
    assert first.labels is None
    np.testing.assert_array_equal(
        second.valid["thermal"], source.picture(3).valid["thermal"][rows, columns]
    )


def test_every_view_has_a_fingerprint_of_its_own() -> None:
    source = _source()
    prints = {
        source.fingerprint(),
        Mirrored(source, [1]).fingerprint(),
        Mirrored(source, [1, 2]).fingerprint(),
        Cropped(source, [1], PATCH).fingerprint(),
        Cropped(source, [1], 2 * PATCH).fingerprint(),
        Mirrored(Pictures(seed="two"), [1]).fingerprint(),
    }
    assert len(prints) == 6


def test_features_of_views_are_views_of_features(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="features need torch: pip install 'unim2[train]'")
    from unim2_core.learning.feature_cache import open_features

    source, rows = _source(), [0, 1, 2, 3, 7]
    whole = open_features(source, Means(), tmp_path)  # type: ignore[arg-type]
    mirrored = open_features(Mirrored(source, rows), Means(), tmp_path)  # type: ignore[arg-type]
    cropped = open_features(Cropped(source, rows, PATCH), Means(), tmp_path)  # type: ignore[arg-type]
    assert cropped.grid == (2, 3)
    cells = middle(whole.grid)
    for name in source.modalities:
        tokens, presence = whole.tokens[name][rows], whole.presence[name][rows]
        np.testing.assert_array_equal(mirrored.presence[name], presence[:, :, ::-1])
        np.testing.assert_allclose(mirrored.tokens[name], tokens[:, :, ::-1], rtol=2e-3)
        inside = cropped.presence[name]
        assert not (inside & ~presence[(slice(None), *cells)]).any()
        np.testing.assert_allclose(
            cropped.tokens[name][inside], tokens[(slice(None), *cells)][inside], rtol=2e-3
        )
    assert (cropped.presence["rgb"]).all()
