"""The features' cache: what is in it, and that nothing but a full disk can hurt it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from picture_samples import CLASSES, DIM, PATCH, Means, Pictures, picture

pytest.importorskip("torch", reason="the cache runs a backbone")

from unim2_core.data.pictures import Picture
from unim2_core.errors import DataError, ModelError
from unim2_core.learning.feature_cache import feature_bytes, open_features
from unim2_core.learning.feature_files import JOURNAL, RECORDS
from unim2_core.learning.features import FeatureStore, Standardization, check_presence
from unim2_core.sensing.warping import GridMap


def same(one: FeatureStore, two: FeatureStore) -> bool:
    arrays = [
        [*s.tokens.values(), *s.presence.values(), s.labels, s.sources, s.sequences, s.stamps_ns]
        for s in (one, two)
    ]
    return one.names == two.names and all(
        np.array_equal(a, b) for a, b in zip(*arrays, strict=True)
    )


def files(cache: Path) -> tuple[Path, Path]:
    [folder] = [entry for entry in cache.iterdir() if entry.is_dir()]
    return folder / RECORDS, folder / JOURNAL


def test_the_store_holds_what_the_backbone_says_in_the_reference_grid(tmp_path: Path) -> None:
    store = open_features(Pictures(), Means(), tmp_path, batch=4)
    assert (len(store), store.grid, store.dim) == (10, (2, 3), DIM)
    assert store.modalities == ("rgb", "thermal")
    assert store.classes == CLASSES
    for number in range(10):
        truth = picture(number)
        rgb = Means()(truth.images["rgb"][None])[0].astype(np.float16)
        np.testing.assert_array_equal(store.tokens["rgb"][number], rgb)
        assert store.presence["rgb"][number].all()
        seen = store.presence["thermal"][number]
        if number % 3 == 2:
            assert not seen.any() and not store.tokens["thermal"][number].any()
        elif number % 2 == 0:
            assert seen.all()
        else:  # one cell to the right; the last column looks past the image, the hole past it
            thermal = Means()(truth.images["thermal"][None])[0].astype(np.float16)
            assert seen.tolist() == [[True, True, False]] * 2
            np.testing.assert_array_equal(store.tokens["thermal"][number, :, :2], thermal[:, 1:])
            assert not store.tokens["thermal"][number][~seen].any()
        labels = 255 if truth.labels is None else truth.labels
        np.testing.assert_array_equal(store.labels[number], np.broadcast_to(labels, (16, 24)))
    np.testing.assert_array_equal(store.sources, np.arange(10) // 5)
    np.testing.assert_array_equal(store.sequences, np.arange(10) // 4)
    np.testing.assert_array_equal(store.stamps_ns, np.arange(10) * 100)
    assert store.names[3] == "picture 3"


def test_a_cell_counts_as_measured_where_half_of_its_pixels_are(tmp_path: Path) -> None:
    class Holes(Pictures):
        def picture(self, number: int) -> Picture:
            valid = np.ones(self.size, np.bool_)
            valid[: PATCH // 2, :PATCH] = False  # half of the first cell
            valid[: PATCH // 2 + 1, PATCH : 2 * PATCH] = False  # more of the second
            return replace(picture(number), maps={}, valid={"rgb": valid})

    store = open_features(Holes(1, 1), Means(), tmp_path)
    assert store.presence["rgb"][0].tolist() == [[True, False, True], [True] * 3]
    assert not store.tokens["rgb"][0, 0, 1].any()


def test_a_complete_store_is_only_opened(tmp_path: Path) -> None:
    source, backbone = Pictures(), Means()
    first = open_features(source, backbone, tmp_path)
    assert (source.decoded, backbone.images) == (10, 17)
    paths = [tmp_path, *tmp_path.rglob("*")]
    before = [(path, path.stat().st_mtime_ns) for path in paths]
    again = open_features(source, backbone, tmp_path)
    assert (source.decoded, backbone.images) == (10, 17)
    assert [(path, path.stat().st_mtime_ns) for path in [tmp_path, *tmp_path.rglob("*")]] == before
    assert same(first, again)
    with pytest.raises(ValueError, match="read-only"):
        again.tokens["rgb"][0] = 0


@pytest.mark.parametrize(
    ("source", "backbone"),
    [
        (Pictures(seed="two"), Means()),
        (Pictures(), Means("other weights")),
        (Pictures(encodings={"rgb": {"preset": "paper"}}), Means()),
        (Pictures(modalities=("thermal", "rgb")), Means()),
        (Pictures(label_size=None, classes=None), Means()),
    ],
)
def test_what_decides_the_features_decides_the_place(tmp_path: Path, source, backbone) -> None:
    if source.label_size is None:
        source.picture = lambda number: replace(picture(number), labels=None)
    open_features(Pictures(), Means(), tmp_path)
    open_features(source, backbone, tmp_path)
    assert len([entry for entry in tmp_path.iterdir() if entry.is_dir()]) == 2


def test_the_size_is_known_before_and_holds_after(tmp_path: Path) -> None:
    size = feature_bytes(Pictures(), Means())
    open_features(Pictures(), Means(), tmp_path / "all")
    assert files(tmp_path / "all")[0].stat().st_size == size
    net = 10 * (2 * (6 * DIM * 2 + 6) + 16 * 24)
    assert net <= size <= 10 * (net / 10 + 5 * 64)
    store = open_features(Pictures(count=7), Means(), tmp_path / "fewer")
    assert len(store) == 7
    assert files(tmp_path / "fewer")[0].stat().st_size == size * 7 // 10


def parses(line: bytes) -> bool:
    try:
        return "number" in json.loads(line)
    except ValueError:
        return False


def test_whatever_part_of_the_journal_survives_the_rest_is_computed(tmp_path: Path) -> None:
    whole = open_features(Pictures(), Means(), tmp_path, batch=1)
    records, journal = files(tmp_path)
    content, raw = journal.read_bytes(), records.read_bytes()
    for cut in (*range(0, len(content), 41), len(content) - 1):
        kept = sum(map(parses, content[:cut].splitlines()))
        there = len(raw) // 10 * kept
        journal.write_bytes(content[:cut])
        # What a dying writer may leave behind the finished records: anything, or nothing.
        records.write_bytes(raw[:there] + b"\xff" * (len(raw) - there) * (cut % 2))
        backbone = Means()
        again = open_features(Pictures(), backbone, tmp_path, batch=1, warn=pytest.fail)
        assert same(whole, again)
        missing = [picture(number) for number in range(kept, 10)]
        assert backbone.images == sum(len(each.images) for each in missing)


MOMENTS = 12


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the cache of a writer that was killed at each of the moments."""
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).with_name("killed_writers.py")
    subprocess.run([sys.executable, script, folder, str(MOMENTS)], check=True)
    return folder


@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
def test_a_writer_killed_at_any_moment_loses_only_what_it_had_not_finished(
    tmp_path: Path, killed: Path, moment: int
) -> None:
    whole = open_features(Pictures(), Means(), tmp_path, batch=2)
    done = 2 * (moment // 2)  # of a batch, the records are first, and then the journal
    backbone = Means()
    cache = killed / str(moment)
    again = open_features(Pictures(), backbone, cache, batch=2, warn=pytest.fail)
    assert same(whole, again)
    assert backbone.images == sum(len(picture(number).images) for number in range(done, 10))


@pytest.mark.parametrize("which", [0, 4, 9])
def test_a_damaged_record_is_computed_again_and_that_is_said(tmp_path: Path, which: int) -> None:
    whole = open_features(Pictures(), Means(), tmp_path / "whole")
    open_features(Pictures(), Means(), tmp_path / "bad", batch=1)
    records, _ = files(tmp_path / "bad")
    raw = bytearray(records.read_bytes())
    raw[len(raw) // 10 * which + 3] ^= 4
    records.write_bytes(bytes(raw))
    unchecked = open_features(Pictures(), Means(), tmp_path / "bad", verify=False)
    assert not same(whole, unchecked)
    said: list[str] = []
    backbone = Means()
    repaired = open_features(Pictures(), backbone, tmp_path / "bad", batch=1, warn=said.append)
    assert same(whole, repaired)
    assert len(said) == 1 and f"1 records in {records.parent} are damaged" in said[0]
    assert f"picture {which}" in said[0]
    assert backbone.images == len(picture(which).images)
    said.clear()
    open_features(Pictures(), Means(), tmp_path / "bad", warn=said.append)
    assert not said


def test_a_damaged_journal_is_mended(tmp_path: Path) -> None:
    whole = open_features(Pictures(), Means(), tmp_path)
    journal = files(tmp_path)[1]
    lines = journal.read_bytes().splitlines(keepends=True)
    fewer = json.dumps({"pictures": 4}).encode() + b"\n"
    renamed = lines[2].replace(b"picture 2", b"picture 7")
    for damaged in (
        [*lines[:3], b"\x00\xfe{]\n", *lines[4:]],
        [*lines[:-1], fewer],
        [*lines[:2], renamed, *lines[3:]],
        [b'{"number": -3, "checksum": 1}\n', b"[]\n", b"7\n", *lines],
        [],
    ):
        journal.write_bytes(b"".join(damaged))
        assert same(whole, open_features(Pictures(), Means(), tmp_path))
        assert journal.read_bytes().count(b"\n") >= 11


def test_lost_records_are_computed_again(tmp_path: Path) -> None:
    whole = open_features(Pictures(), Means(), tmp_path / "whole")
    open_features(Pictures(), Means(), tmp_path / "cache")
    records, _ = files(tmp_path / "cache")
    os.truncate(records, records.stat().st_size - 1)
    for verify in (False, True):
        said: list[str] = []
        again = open_features(
            Pictures(), Means(), tmp_path / "cache", verify=verify, warn=said.append
        )
        assert same(whole, again) and len(said) == 1
        records.unlink()


def test_of_two_writers_the_second_waits_and_takes_what_is_there(tmp_path: Path) -> None:
    go_on, waits = threading.Event(), threading.Event()

    class Held(Pictures):
        def picture(self, number: int) -> Picture:
            assert number < 5 or go_on.wait(20)
            return super().picture(number)

    def warned(text: str) -> None:
        assert "another process" in text
        waits.set()

    stores: dict[str, FeatureStore] = {}

    def run(name: str, warn) -> None:
        stores[name] = open_features(held, backbone, tmp_path, batch=2, warn=warn)

    held, backbone = Held(), Means()
    first = threading.Thread(target=run, args=("first", pytest.fail))
    first.start()
    while not list(tmp_path.glob("*.lock")) or backbone.images < 4:
        time.sleep(0.002)
    second = threading.Thread(target=run, args=("second", warned))
    second.start()
    assert waits.wait(20)
    go_on.set()
    first.join(20)
    second.join(20)
    assert same(stores["first"], stores["second"])
    assert (held.decoded, backbone.images) == (10, 17)


@pytest.mark.parametrize("reserve", [True, False])
def test_a_full_disk_is_an_error_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserve: bool
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if reserve:
        monkeypatch.setattr(os, "posix_fallocate", full)
    else:
        monkeypatch.setattr("unim2_core.files.os.replace", full)
    source, backbone = Pictures(limit=10**6), Means()
    with pytest.raises(DataError, match=r"room for 0.\d{3} GB(.|\n)*No space left") as caught:
        open_features(source, backbone, tmp_path)
    assert "GB are free" in caught.value.found and "--cache DIR" in caught.value.remedy
    assert (source.decoded, backbone.images) == (0, 0)
    assert not list(tmp_path.rglob(RECORDS))


def test_more_than_the_file_system_holds_is_refused_by_the_system_itself(tmp_path: Path) -> None:
    source = Pictures(limit=2**50)
    with pytest.raises(DataError, match="cannot be stored"):
        open_features(source, Means(), tmp_path)
    assert source.decoded == 0
    assert sum(path.stat().st_blocks for path in tmp_path.rglob("*") if path.is_file()) == 0


def test_rows_of_an_interrupted_run_survive_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Pictures):
        def picture(self, number: int) -> Picture:
            if number == 6:
                raise DataError("cannot read a file")
            return super().picture(number)

    with pytest.raises(DataError, match="cannot read"):
        open_features(Failing(), Means(), tmp_path, batch=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(DataError, match="full"):
            open_features(Pictures(), Means(), tmp_path, batch=2)
    backbone = Means()
    open_features(Pictures(), backbone, tmp_path, batch=2)
    assert backbone.images == sum(len(picture(number).images) for number in range(6, 10))


def test_a_place_that_cannot_be_written_to_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another place with --cache"):
        open_features(Pictures(), Means(), tmp_path / "file" / "cache")


@pytest.mark.parametrize(("factor", "found"), [(np.nan, "nan"), (np.inf, "inf"), (300, "1408")])
def test_features_that_float16_cannot_hold_are_refused(
    tmp_path: Path, factor: float, found: str
) -> None:
    with pytest.raises(ModelError, match=rf"features of picture 0, rgb(.|\n)*found: +{found}"):
        open_features(Pictures(), Means(factor=factor), tmp_path)
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {"rgb": np.zeros((16, 16, 3), np.uint8)}}, "image of rgb"),
        ({"images": {"sonar": np.zeros((16, 24, 3), np.uint8)}}, "modalities"),
        ({"labels": np.zeros((8, 8), np.uint8)}, "labels"),
        ({"maps": {"rgb": GridMap.stretched((4, 6), (4, 6))}}, "map of rgb"),
    ],
)
def test_a_picture_that_does_not_fit_its_source_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    source = Pictures()
    source.picture = lambda number: replace(picture(number), **change)
    with pytest.raises(DataError, match=f"picture 0 is not as its source says: {message}"):
        open_features(source, Means(), tmp_path)


def test_a_source_without_pictures_or_with_too_many_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to learn from"):
        open_features(Pictures(count=0), Means(), tmp_path)
    with pytest.raises(DataError, match="at most 9"):
        open_features(Pictures(limit=9), Means(), tmp_path)
    with pytest.raises(DataError, match="multiples of 8"):
        open_features(Pictures(size=(16, 20)), Means(), tmp_path)


def test_progress_counts_pictures_up_to_the_limit(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    open_features(
        Pictures(), Means(), tmp_path, batch=4, progress=lambda *done: calls.append(done)
    )
    assert calls == [(4, 10), (8, 10), (10, 10)]


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    class Unlabelled(Pictures):
        def picture(self, number: int) -> Picture:
            return replace(super().picture(number), labels=None)

    def peak(count: int) -> int:
        tracemalloc.start()
        source = Unlabelled(count, count, seed=str(count), label_size=(300, 300))
        store = open_features(source, Means(), tmp_path, batch=2)
        open_features(source, Means(), tmp_path)
        Standardization.of(store)
        check_presence(store)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(store) == count
        return top

    peak(2)  # what is only paid for once
    few, many = peak(10), peak(110)
    assert many - few < 100 * 5_000  # the names and numbers; a record has 90 kB
