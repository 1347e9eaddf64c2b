"""Weights are replaced while frames run: a frame has one version, earlier ones come back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.inference.backends import LIBRARIES, Backend
from unim2_core.inference.engine import Engine
from unim2_core.inference.served_heads import KEPT, SLOTS, ServedHeads
from unim2_core.model.bundle import Bundle

SWAPS = 1000


def weights(clusters: int = 3, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    return {
        "mean": draw.standard_normal((2, 5)).astype(np.float32),
        "prototypes": draw.standard_normal((clusters, 4)).astype(np.float32),
        "valid": np.ones(clusters, np.float32),
    }


def test_clusters_are_padded_to_whole_slots_that_are_not_in_use() -> None:
    for clusters in (2, SLOTS, SLOTS + 1):
        inputs = ServedHeads("a", weights(clusters)).current.inputs
        assert len(inputs["prototypes"]) == len(inputs["valid"]) == -(-clusters // SLOTS) * SLOTS
        assert inputs["valid"].sum() == clusters
        assert not inputs["prototypes"][clusters:].any()


def test_versions_come_back_in_turn_as_far_as_they_are_kept() -> None:
    heads = ServedHeads("0", weights())
    for number in range(1, KEPT + 3):
        heads.replace(str(number), weights(seed=number))
    for number in range(KEPT + 1, 1, -1):
        assert heads.roll_back() == str(number) == heads.current.version
        expected = weights(seed=number)["mean"]
        np.testing.assert_array_equal(heads.current.inputs["mean"], expected)
    with pytest.raises(ModelError, match="no earlier version"):
        heads.roll_back()
    assert heads.current.version == "2"


def test_a_swap_copies_nothing_but_what_it_pads() -> None:
    own = weights()
    heads = ServedHeads("a", own)
    inputs = heads.current.inputs
    assert inputs["mean"] is own["mean"]
    assert not np.shares_memory(inputs["prototypes"], own["prototypes"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": np.zeros((2, 6), np.float32)}, r"expected: mean \(2, 5\)"),
        ({"prototypes": np.zeros((3, 9), np.float32)}, "prototypes"),
        ({"more": np.zeros(1, np.float32)}, "more not there"),
        ({"valid": np.ones(4, np.float32)}, "3 and 4"),
        ({"valid": np.float32(1)}, "valid"),
        (weights(255), "2 to 254 clusters"),
        (weights(1), "2 to 254 clusters"),
        ({"mean": np.full((2, 5), np.nan, np.float32)}, "values that are not"),
    ],
)
def test_weights_of_another_network_are_refused_and_nothing_changes(
    change: dict[str, NDArray[np.float32]], said: str
) -> None:
    heads = ServedHeads("a", weights())
    with pytest.raises(ModelError, match=said):
        heads.replace("b", weights() | change)
    assert heads.current.version == "a"
    with pytest.raises(ModelError, match="no earlier version"):
        heads.roll_back()


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_thousand_swaps_under_load_and_no_frame_is_mixed(
    model_path: Path, backend: Backend
) -> None:
    if not LIBRARIES[backend].installed:
        pytest.skip(f"{backend} is not installed: pip install 'unim2[{backend}]'")
    if not LIBRARIES[backend].device_there():
        pytest.skip(f"{backend} has no device here: no weights were swapped on it")
    bundle = Bundle(model_path)
    engine = Engine(bundle, backend, threads=1)
    first = bundle.weights()
    # The other version has a class more, and the same classes in another order.
    second = dict(first)
    for name in ("prototypes", "valid"):
        second[name] = np.concatenate([first[name][::-1], first[name][:1]])
    stored = bundle.parity()
    tokens = stored["tokens"].astype(np.float32)[:, :3, :4]
    presence = np.ones(tokens.shape[:3], np.float32)
    versions = {"first": first, "second": second}
    expected = {}
    for name, own in versions.items():
        engine.heads.replace(name, own)
        expected[name] = engine.classify(tokens, presence).classes
    assert (expected["first"] != expected["second"]).any()

    def swap() -> None:
        for number in range(SWAPS):
            name = ("first", "second")[number % 2]
            engine.heads.replace(name, versions[name])
            time.sleep(1e-4)  # or all are over before the second frame

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    while swapping.is_alive():
        answer = engine.classify(tokens, presence)
        np.testing.assert_array_equal(answer.classes, expected[answer.version])
        seen.add(answer.version)
    swapping.join()
    assert seen == set(versions)
    assert engine.heads.roll_back() == "first"
    np.testing.assert_array_equal(engine.classify(tokens, presence).classes, expected["first"])
