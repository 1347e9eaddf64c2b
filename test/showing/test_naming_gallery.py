from __future__ import annotations

import cv2
import numpy as np
import pytest

from unim2_core.data.pictures import Picture
from unim2_core.sensing.warping import GridMap
from unim2_core.showing.naming.clusters import ClusterCounts, ClusterFacts
from unim2_core.showing.naming.gallery import NOT_SEEN, THUMB_PX, TILE_PX, Gallery
from unim2_core.showing.naming.spots import Spot, SpotFinder, spread

SIZE = (80, 120)


def decoded(content: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def halves() -> tuple[np.ndarray, np.ndarray]:
    """Cluster 0 on the left, 1 on the right; unsure in a band of the left half's bottom."""
    classes = np.zeros(SIZE, np.uint8)
    classes[:, 60:] = 1
    confidence = np.full(SIZE, 250, np.uint8)
    confidence[60:, :60] = 10
    return classes, confidence


def test_the_typical_place_is_sure_and_inside_and_the_other_is_in_doubt():
    finder = SpotFinder()
    finder.add(*halves())
    chosen = finder.chosen(6)
    typical, unsure = chosen[0, "typical"][0], chosen[0, "unsure"][0]
    assert typical.column < 0.5
    assert typical.row < 0.75
    assert unsure.column < 0.5
    assert unsure.row > 0.75
    assert chosen[1, "typical"][0].column > 0.5
    assert set(chosen) == {(0, "typical"), (0, "unsure"), (1, "typical"), (1, "unsure")}


def test_unlabelled_places_have_no_spot():
    finder = SpotFinder()
    finder.add(np.full(SIZE, 255, np.uint8), np.zeros(SIZE, np.uint8))
    assert finder.chosen(6) == {}


def test_choices_lie_apart_where_there_are_enough_pictures():
    spots = [Spot(i, 0.5, 0.5, score=100 - i) for i in range(48)]
    taken = spread(spots, 6)
    numbers = sorted(spot.picture for spot in taken)
    assert len(numbers) == 6
    assert min(np.diff(numbers)) > 4
    assert taken[0].score == 100
    assert [spot.picture for spot in spread(spots[:3], 6)] == [0, 1, 2]


def test_counts_of_pixels_confidence_borders_and_pictures():
    counts = ClusterCounts(3)
    classes, confidence = halves()
    counts.add(classes, confidence)
    counts.add(np.full(SIZE, 255, np.uint8), confidence)
    assert counts.pixels.tolist() == [4800, 4800, 0]
    assert counts.pictures.tolist() == [1, 1, 0]
    assert counts.borders[0, 1] == counts.borders[1, 0] == 80
    assert counts.borders.sum() == 160
    facts = ClusterFacts.of(counts, np.eye(3, dtype=np.float32))
    assert facts.share.tolist() == [0.5, 0.5, 0]
    assert facts.confidence[1] == pytest.approx(250 / 255)
    assert facts.confidence[2] == 0
    assert facts.neighbours(0) == [(1, 1.0)]
    assert facts.neighbours(2) == []


def test_what_is_alike_and_touches_is_proposed_to_be_one():
    counts = ClusterCounts(4)
    classes = np.repeat(np.array([0, 1, 2, 3], np.uint8), 30)[None].repeat(80, 0)
    counts.add(classes, np.zeros_like(classes))
    prototypes = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [1, 0, 0.1]], np.float32)
    facts = ClusterFacts.of(counts, prototypes)
    assert [pair[:2] for pair in facts.merges()] == [(0, 1)]  # 3 is alike, and touches 2 alone
    assert {cluster for cluster, _ in facts.alike(0)} == {1, 3}


def test_crops_show_what_is_there_in_every_modality():
    image = np.full((*SIZE, 3), (200, 30, 30), np.uint8)
    image[:, 60:] = (30, 30, 200)
    thermal = np.full((*SIZE, 3), 90, np.uint8)
    grid = GridMap.within(
        np.stack(np.meshgrid(np.arange(6), np.arange(4)), axis=-1).astype(np.float32),
        np.broadcast_to(np.arange(6) < 3, (4, 6)),
        (4, 6),
    )
    picture = Picture("one", {"rgb": image, "thermal": thermal}, maps={"thermal": grid})
    chosen = {
        (0, "typical"): [Spot(0, 0.5, 0.2, 1.0)],
        (1, "typical"): [Spot(0, 0.5, 0.8, 1.0)],
    }
    classes = [halves()[0]]
    gallery = Gallery.cut([picture], ("rgb", "thermal", "nir"), chosen, classes, 2)
    assert gallery.columns == {(0, "typical"): 1, (1, "typical"): 1}
    left, right = decoded(gallery.sheets[0, "typical"]), decoded(gallery.sheets[1, "typical"])
    assert left.shape == (3 * TILE_PX, TILE_PX, 3)
    middle = TILE_PX // 2
    assert np.abs(left[middle, middle] - np.array((200, 30, 30.0))).max() < 12
    assert np.abs(right[middle, middle] - np.array((30, 30, 200.0))).max() < 12
    assert np.abs(left[TILE_PX + middle, middle] - 90.0).max() < 6
    for unseen in (right[TILE_PX : 2 * TILE_PX], left[2 * TILE_PX :]):  # off its image; no nir
        assert np.abs(unseen.astype(int) - NOT_SEEN).mean() < 6
    thumbs = decoded(gallery.thumbs)
    assert thumbs.shape == (2 * THUMB_PX, THUMB_PX, 3)
    assert thumbs[THUMB_PX // 2, THUMB_PX // 2, 0] > 150


def test_a_line_marks_the_cluster_inside_the_crop_alone():
    grey = np.full((*SIZE, 3), 128, np.uint8)
    spot = {(0, "typical"): [Spot(0, 0.5, 0.5, 1.0)]}
    drawn = decoded(
        Gallery.cut([Picture("", {"rgb": grey})], ("rgb",), spot, [halves()[0]], 2).sheets[
            0, "typical"
        ]
    )
    columns = np.nonzero(drawn[TILE_PX // 2, :, 0] > 200)[0]
    assert len(columns)
    assert np.abs(columns - TILE_PX / 2).max() < 6
    assert np.abs(drawn[:, :40].astype(int) - 128).max() < 12
