"""Shards of a fleet against the same features in one store, here and behind S3."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_store import object_store
from shard_samples import (
    CELLS,
    ROWS,
    SIZES,
    WANTED,
    assert_same_read,
    fleet_at,
    shard_of,
    store_of,
    write_fleet,
    write_shard,
)

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import DataError, ModelError
from unim2_core.learning import shard_places
from unim2_core.learning.features import FeatureStore, Standardization, check_presence
from unim2_core.learning.group import Group
from unim2_core.learning.joined import Joined
from unim2_core.learning.learner import Learner
from unim2_core.learning.methods import recipe
from unim2_core.learning.pairs import NeighborConfig, describe
from unim2_core.learning.shard_places import RemoteRecords, find_shards
from unim2_core.learning.shards import chosen_shards

torch.set_num_threads(1)
NAMES = ("rgb", "thermal")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, place: Path) -> Iterator[Any]:
    """The same shards at s3://robots/fleet."""
    pytest.importorskip("s3fs", reason="not installed: pip install 'unim2[fleet]'")
    pytest.importorskip("moto", reason="not installed: pip install 'unim2[dev]'")
    with object_store(tmp_path_factory.mktemp("s3")) as system:
        system.put(f"{place}/", "robots/fleet/", recursive=True)
        yield system


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """Shards to be damaged."""
    return Path(shutil.copytree(place, tmp_path / "own"))


def in_memory(cache: Path) -> FeatureStore:
    """All drives in the order of their names, in one store."""
    parts = [store_of(cache, name, *SIZES[name]) for name in sorted(SIZES)]
    number = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return FeatureStore(
        {n: np.concatenate([part.tokens[n] for part in parts]) for n in NAMES},
        {n: np.concatenate([part.presence[n] for part in parts]) for n in NAMES},
        np.arange(len(number)),
        number,
        np.concatenate([part.stamps_ns for part in parts]),
    )


@pytest.mark.parametrize("cells", [None, CELLS], ids=["whole", "places"])
def test_shards_are_read_as_one_store(
    place: Path, bucket: Any, tmp_path: Path, cells: np.ndarray | None
) -> None:
    one = in_memory(tmp_path)
    for fleet in (fleet_at(str(place)), fleet_at("s3://robots/fleet")):
        assert [shard.facts.name for shard in fleet.shards] == ["a", "b", "c"]
        assert_same_read(fleet, one, cells)
        for name in ("sources", "sequences", "stamps_ns"):
            np.testing.assert_array_equal(getattr(fleet, name), getattr(one, name))
        assert (len(fleet), fleet.modalities, fleet.grid, fleet.dim) == (15, NAMES, (2, 3), 6)
        assert not fleet.complete and fleet.only(["rgb"]).complete == one.only(["rgb"]).complete
        assert fleet.absent == () and fleet.labels is None
        assert_same_read(fleet.only(["thermal"]), one.only(["thermal"]), cells)
        with pytest.raises(ModelError, match="sonar"):
            fleet.only(["sonar"])
    assert fleet_at(str(place)).identity == fleet_at("s3://robots/fleet").identity


def test_what_is_learnt_is_what_one_store_gives_wherever_the_shards_are(
    place: Path, bucket: Any, tmp_path: Path
) -> None:
    """Also over two places, in whatever order they are named."""
    far = tmp_path / "far"
    (far / "drives").mkdir(parents=True)
    near = Path(shutil.copytree(place, tmp_path / "near"))
    shutil.move(shard_of(near, "a"), far / "drives")
    store, together = store_of(tmp_path / "cache", "bag", 0, 8), in_memory(tmp_path / "cache")
    how = recipe("unim2", NAMES, 6, 3, steps=4, seed=3, baseline=True, device="cpu")
    how = replace(how, batch=6, samples=2)
    learners = [
        Learner(store, how, Joined([together])),
        Learner(store, how, fleet_at(str(place))),
        Learner(store, how, fleet_at(str(near), str(far))),
        Learner(store, how, fleet_at("s3://robots/fleet")),
    ]
    ends = []
    for index, one in enumerate(learners):
        assert len(one.all) == 8 + 15 and len(one.store) == 8
        learned = one.learn(tmp_path / f"run{index}")
        ends.append((learned.objective.state_dict(), learned.classifier.prototypes))
        assert learned.report["batch"] == 6
    for state, prototypes in ends[1:]:
        assert prototypes.equal(ends[0][1])
        assert all(tensor.equal(ends[0][0][name]) for name, tensor in state.items())
    alone = Learner(store, how)
    assert not np.array_equal(alone.standardization.mean, learners[1].standardization.mean)


def test_processes_that_see_different_fleets_say_so(
    place: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than wait for each other: what the first one sees reaches the other."""
    how = recipe("unim2", NAMES, 6, 3, steps=4, baseline=True, device="cpu")
    store, seen = store_of(tmp_path, "bag", 0, 8), list[Any]()
    monkeypatch.setattr(Group, "from_first", lambda _, make: seen.append(make()) or seen[-1])
    Learner(store, how, fleet_at(str(place)))
    monkeypatch.setattr(Group, "from_first", lambda _, make: seen[0])
    shutil.rmtree(shard_of(own, "c"))
    with pytest.raises(DataError, match=r"do not see the same[^\n]*\n.*pictures as process 0: 23"):
        Learner(store, how, fleet_at(str(own)))
    write_shard(own, "c", 600, 4)
    with pytest.raises(DataError, match="fleet as process 0"):
        Learner(store, how, fleet_at(str(own)))


def test_only_what_is_asked_for_is_read(bucket: Any) -> None:
    fleet = fleet_at("s3://robots/fleet")
    readers = [shard.records for shard in fleet.shards]
    assert all(isinstance(reader, RemoteRecords) for reader in readers)
    assert sum(reader.bytes_read for reader in readers) == 0  # opened
    fleet.read(ROWS[:3])
    size = fleet.shards[0].facts.layout.record.itemsize
    assert sum(reader.bytes_read for reader in readers) == 3 * size
    check_presence(fleet)
    assert not fleet.complete
    assert sum(reader.bytes_read for reader in readers) == 3 * size


def test_drives_at_hand_and_drives_twice_are_taken_once(place: Path, own: Path) -> None:
    said: list[str] = []
    shards = [s for p in (place, own) for s in find_shards(str(p), WANTED)]
    fleet = chosen_shards(shards, ["digest of 200"], said.append)
    assert [shard.facts.name for shard in fleet.shards] == ["b", "c"]
    assert sum("a is given with --bag" in text for text in said) == 2
    assert sum("is there twice" in text for text in said) == 2
    with pytest.raises(DataError, match="nothing to learn from"):
        chosen_shards(shards, [f"digest of {first}" for first, _ in SIZES.values()], print)
    write_shard(own, "b", 900)
    said.clear()
    chosen_shards(find_shards(str(own), WANTED), (), said.append)
    assert said == [
        "2 different drives are called b; if it was recorded again, delete the features of the "
        "older recording"
    ]


def _cut(folder: Path) -> None:
    records = folder / "features.bin"
    records.write_bytes(records.read_bytes()[:-1])


def _unsaid(folder: Path) -> None:
    journal = folder / "rows.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))


def _other_version(folder: Path) -> None:
    facts = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(facts | {"version": 0}))


def _of_no_reference(folder: Path) -> None:
    facts = json.loads((folder / "store.json").read_text())
    del facts["reference"]
    (folder / "store.json").write_text(json.dumps(facts))


def _scratched(folder: Path) -> None:
    text = (folder / "store.json").read_text()
    (folder / "store.json").write_text(text.replace('"somewhere"', '"everywhere"', 1))


DAMAGE = {
    "no facts": (lambda f: (f / "store.json").unlink(), "do not say what they are of"),
    "empty facts": (lambda f: (f / "store.json").write_bytes(b""), "no JSON of that form"),
    "other version": (_other_version, "of another version"),
    "no reference": (_of_no_reference, "of another version.*without reference"),
    "scratched facts": (_scratched, "another checksum"),
    "no records": (lambda f: (f / "features.bin").unlink(), "of b are incomplete.*no file"),
    "cut records": (_cut, "of b are incomplete"),
    "no journal": (lambda f: (f / "rows.jsonl").unlink(), "of b are incomplete"),
    "no end": (_unsaid, "of b are incomplete.*unknown number"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_shard_that_is_not_whole_is_named(name: str, own: Path, bucket: Any) -> None:
    do, expected = DAMAGE[name]
    do(shard_of(own))
    bucket.invalidate_cache()
    address = f"robots/damage/{name.replace(' ', '-')}"
    bucket.put(f"{own}/", f"{address}/", recursive=True)
    for place in (str(own), f"s3://{address}"):
        with pytest.raises(DataError) as error:
            find_shards(place, WANTED)
        text = str(error.value).replace("\n", " ")
        assert re.search(expected, text), text
        assert "fleet features again" in text


def test_a_scratch_in_a_record_is_found_before_it_is_learnt_from(own: Path, bucket: Any) -> None:
    records = shard_of(own) / "features.bin"
    content = bytearray(records.read_bytes())
    size = len(content) // SIZES["b"][1]
    content[2 * size] ^= 1
    records.write_bytes(content)
    fleet = fleet_at(str(own))
    with pytest.raises(DataError, match=r"of b are damaged.*\n.*picture 102"):
        describe(fleet, NeighborConfig(), Standardization.identity(2, 6))
    bucket.put(f"{own}/", "robots/scratched/", recursive=True)
    there = fleet_at("s3://robots/scratched")
    assert len(there.read(np.array([5 + 1])).tokens) == 2
    with pytest.raises(DataError, match=r"of b are damaged.*\n.*picture 102"):
        there.read(np.array([5 + 2]))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"backbone": "other"}, "another backbone"),
        ({"encodings": {"rgb": {"a": [1, 2]}, "sonar": {}}}, "other modalities"),
        ({"encodings": {"rgb": {"a": [1, 3]}}}, "rgb encoded in another way"),
        ({"size": (32, 48)}, "another size"),
        ({"reference": "thermal"}, "registered into another sensor"),
    ],
)
def test_a_shard_that_does_not_fit_is_refused(
    place: Path, changed: dict[str, Any], expected: str
) -> None:
    with pytest.raises(DataError, match=f"of [abc] are .*{expected}"):
        find_shards(str(place), replace(WANTED, **changed))
    assert len(find_shards(str(place), replace(WANTED, encodings={"thermal": {}}))) == 3


def test_what_disappears_while_it_is_read_is_an_error(own: Path, bucket: Any) -> None:
    bucket.put(f"{own}/", "robots/vanishing/", recursive=True)
    fleet, here = fleet_at("s3://robots/vanishing"), fleet_at(str(own))
    address = fleet.shards[1].where
    bucket.rm(f"{address}/features.bin")
    with pytest.raises(DataError, match=f"cannot use {address}"):
        fleet.read(np.arange(15))
    (shard_of(own) / "features.bin").unlink()
    with pytest.raises(DataError, match="as when the training began"):
        here.read(np.arange(15))


def test_more_shards_than_a_process_may_have_files(place: Path, monkeypatch: Any) -> None:
    fleet = fleet_at(str(place))
    monkeypatch.setattr(shard_places, "_mapped", lru_cache(2)(shard_places._mapped.__wrapped__))
    expected = fleet.read(ROWS).tokens["rgb"]
    for _ in range(3):
        np.testing.assert_array_equal(fleet.read(ROWS).tokens["rgb"], expected)
    assert shard_places._mapped.cache_info().currsize == 2


@pytest.mark.parametrize("longer", ["a", "z"])
def test_which_of_two_stores_of_a_drive_is_kept_does_not_depend_on_their_place(
    longer: str, tmp_path: Path
) -> None:
    for folder in ("a", "z"):
        write_shard(tmp_path / folder, "b", 100, 6 if folder == longer else 4)
    (kept,) = fleet_at(str(tmp_path / "a"), str(tmp_path / "z")).shards
    both = [fleet_at(str(tmp_path / folder)).shards[0].identity for folder in ("a", "z")]
    assert kept.identity == min(both) != max(both)


def test_places_without_shards_are_errors(tmp_path: Path, bucket: Any) -> None:
    (tmp_path / "drives").mkdir()
    bucket.pipe_file("robots/empty/drives/one.mcap", b"")
    for place in (str(tmp_path / "none"), str(tmp_path), "s3://robots/empty", "s3://none/fleet"):
        with pytest.raises(DataError, match=r"no features in|cannot use"):
            find_shards(place, WANTED)
    store_of(tmp_path / "drives", "views", 0)  # a cache has stores of anything
    with pytest.raises(DataError, match="do not say what they are of"):
        find_shards(str(tmp_path), WANTED)
