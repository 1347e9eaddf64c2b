from __future__ import annotations

import numpy as np
import pytest

from unim2_core.learning.features import FeatureStore, Standardization

torch = pytest.importorskip("torch")
from unim2_core.learning.buffer import ReplayBuffer, Sample
from unim2_core.learning.memory import (
    HELD,
    REHEARSED,
    Memory,
    held_out,
    mirrored_cells,
    shared_out,
)

SIDE, DIM = 4, 6
NAMES = ("rgb", "thermal")


def sample(number: int, sequence: int = 0) -> Sample:
    draw = np.random.default_rng(number)
    shape = (SIDE, SIDE, DIM)
    return Sample(
        {name: draw.normal(draw.normal(size=DIM), 1, shape).astype(np.float16) for name in NAMES},
        {name: np.ones((SIDE, SIDE), np.bool_) for name in NAMES},
        sequence,
        number * 10**9,
    )


def store(count: int, first: int = 0, drives: int = 1) -> FeatureStore:
    from unim2_core.learning.memory import concatenated

    return concatenated(*(sample(first + i, i * drives // count).store for i in range(count)))


def buffer(old: int = 6, **more: float) -> ReplayBuffer:
    return ReplayBuffer(store(old), Standardization.identity(2, DIM), seed=5, **more)


def test_the_old_domain_keeps_its_share_however_much_comes() -> None:
    made = buffer(share=0.5)
    for number in range(100, 150):
        made.offer(sample(number))
    assert (made.old, made.filled) == (6, 6)
    assert made.shares == {0: 6, 1: 6}
    np.testing.assert_array_equal(made.store.tokens["rgb"][:6], store(6).tokens["rgb"])
    assert buffer(share=0.25).capacity == 18


def test_each_picture_is_equally_likely_to_stay() -> None:
    kept = np.zeros(30)
    for seed in range(300):
        made = ReplayBuffer(store(6), Standardization.identity(2, DIM), seed=seed)
        for number in range(30):
            made.offer(sample(100 + number))
        kept[made.new.stamps_ns // 10**9 - 100] += 1
    assert kept.min() > 300 * 6 / 30 / 2
    assert kept.max() < 300 * 6 / 30 * 2


def test_near_duplicates_are_refused_wherever_the_first_is() -> None:
    made = buffer()
    first = sample(100)
    assert made.offer(first)
    assert not made.offer(first)
    noisy = Sample(
        {n: (p + np.float16(1e-3)).astype(np.float16) for n, p in first.tokens.items()},
        first.presence,
    )
    assert made.offer(sample(101))
    assert not made.offer(noisy)
    assert (made.offered, made.refused, made.filled) == (4, 2, 2)


def test_a_buffer_that_goes_on_is_the_one_that_was_not_stopped() -> None:
    whole, first = buffer(), buffer()
    for number in range(100, 120):
        whole.offer(sample(number))
        if number < 111:
            first.offer(sample(number))
    second = buffer()
    second.load(first.state())
    for number in range(111, 120):
        second.offer(sample(number))
    for name in NAMES:
        np.testing.assert_array_equal(second.store.tokens[name], whole.store.tokens[name])
    ours, theirs = (made.batches(4, 2)(3) for made in (whole, second))
    for name in NAMES:
        assert torch.equal(ours.anchors[name], theirs.anchors[name])
        assert torch.equal(ours.positives[name], theirs.positives[name])


def wide(count: int, drives: int = 1) -> FeatureStore:
    draw = np.random.default_rng(3)
    tokens = draw.normal(size=(count, 5, 8, DIM)).astype(np.float16)
    return FeatureStore(
        {"rgb": tokens},
        {"rgb": draw.random((count, 5, 8)) > 0.2},
        np.arange(count),
        np.arange(count) * drives // count,
        np.arange(count) * 10**9,
    )


def test_a_memory_is_read_as_it_was_written(tmp_path) -> None:
    from safetensors.numpy import save_file

    pictures = wide(40, drives=2)
    mirrored = FeatureStore(
        {"rgb": pictures.tokens["rgb"][:, :, ::-1]},
        {"rgb": pictures.presence["rgb"][:, :, ::-1]},
        pictures.sources,
        pictures.sequences,
        pictures.stamps_ns,
    )
    made = Memory.of(pictures, mirrored)
    # what was mirrored twice is what it was: place by place
    np.testing.assert_array_equal(made.mirrored.tokens["rgb"], made.held.tokens["rgb"])
    both = set(made.held.stamps_ns.tolist()) & set(made.rehearsed.stamps_ns.tolist())
    assert not both
    save_file(made.tensors(), tmp_path / "memory.safetensors")
    read = Memory.load(tmp_path / "memory.safetensors")
    assert (read.grid, read.first_drives) == ((5, 8), 2)
    np.testing.assert_array_equal(read.cells, made.cells)
    for part in ("rehearsed", "held", "mirrored"):
        ours, theirs = getattr(made, part), getattr(read, part)
        np.testing.assert_array_equal(ours.tokens["rgb"], theirs.tokens["rgb"])
        np.testing.assert_array_equal(ours.presence["rgb"], theirs.presence["rgb"])
        np.testing.assert_array_equal(ours.sequences, theirs.sequences)


def test_the_first_training_keeps_half_of_the_memory_over_many_adaptations() -> None:
    made = Memory.of(wide(100))
    for _ in range(8):
        made = made.joined(Memory.of(wide(100)))
    assert len(made.rehearsed) == REHEARSED and len(made.held) == HELD
    assert (made.rehearsed.sequences < 1).sum() == REHEARSED // 2
    counts = np.bincount(made.rehearsed.sequences)[1:]
    assert counts.sum() == REHEARSED // 2 and counts.min() >= 2


def test_short_pasts_leave_their_room_to_others() -> None:
    drives = np.repeat([0, 1, 2], [40, 2, 40])
    kept = shared_out(drives, 1, 20)
    assert np.bincount(drives[kept]).tolist() == [10, 2, 8]
    assert len(shared_out(np.repeat([0, 1], [4, 40]), 1, 20)) == 20


@pytest.mark.parametrize("count", [2, 3, 5, 12, 40, 200])
def test_some_pictures_are_held_out_and_most_are_not(count: int) -> None:
    share = held_out(count).mean()
    assert 0 < share <= 0.5


def test_a_mirror_swaps_columns() -> None:
    cells = np.array([0, 3, 9])
    assert mirrored_cells(cells, (3, 4)).tolist() == [3, 0, 10]
