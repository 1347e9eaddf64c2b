from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from unim2_core.errors import ModelError
from unim2_core.files import sha256
from unim2_core.model.bundle import MANIFEST, UNLABELLED, Bundle, Label
from unim2_core.model.given import NAMINGS
from unim2_core.model.relabelling import put_back, relabelled

ROAD = Label(id=0, name="road", color=(1, 2, 3))
SKY = Label(id=2, name="sky", color=(4, 5, 6))


@pytest.fixture
def copy(model_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))


def test_names_and_a_table_are_another_version_of_the_same_network(copy: Path) -> None:
    before = Bundle(copy)
    after = relabelled(before, (ROAD, SKY), {1: 0, 3: UNLABELLED})
    assert after.manifest.labels == (ROAD, SKY)
    assert after.manifest.parent == before.sha256 != after.sha256
    assert after.manifest.files == before.manifest.files
    assert after.manifest.clusters == before.manifest.clusters == 4
    table = after.manifest.served
    assert table[:5].tolist() == [0, 0, 2, UNLABELLED, 4]
    assert table[UNLABELLED] == UNLABELLED
    assert len(set(after.manifest.names)) == 4
    assert Bundle(copy).sha256 == after.sha256


def test_the_version_before_is_kept_byte_by_byte_and_can_be_put_back(copy: Path) -> None:
    before, content = Bundle(copy), (copy / MANIFEST).read_bytes()
    after = relabelled(before, (ROAD, SKY), {1: 0, 3: 2})
    again = put_back(after)
    assert again.sha256 == before.sha256
    assert (copy / MANIFEST).read_bytes() == content
    assert sha256(copy / NAMINGS / f"{after.sha256}.json") == after.sha256


def test_no_change_makes_no_version(copy: Path) -> None:
    before = Bundle(copy)
    assert relabelled(before, before.manifest.labels, {}) is before
    assert not (copy / NAMINGS).exists()


def test_there_is_nothing_before_a_new_model(copy: Path) -> None:
    with pytest.raises(ModelError, match="no earlier names"):
        put_back(Bundle(copy))


@pytest.mark.parametrize("damage", ["remove", "change"])
def test_a_damaged_history_is_not_put_back(copy: Path, damage: str) -> None:
    before = Bundle(copy)
    after = relabelled(before, (ROAD, SKY), {1: 0, 3: 2})
    kept = copy / NAMINGS / f"{before.sha256}.json"
    kept.unlink()
    if damage == "change":
        kept.write_text("{}")
    with pytest.raises(ModelError, match="no earlier names"):
        put_back(after)
    assert Bundle(copy).sha256 == after.sha256


def test_who_opened_an_older_version_does_not_overwrite_a_newer_one(copy: Path) -> None:
    old = Bundle(copy)
    newer = relabelled(Bundle(copy), (ROAD, SKY), {1: 0, 3: 2})
    with pytest.raises(ModelError, match="changed by somebody else"):
        relabelled(old, (ROAD,), {1: 0, 2: 0, 3: 0})
    assert Bundle(copy).sha256 == newer.sha256


@pytest.mark.parametrize(
    ("labels", "served_as"),
    [
        ((), {0: 255, 1: 255, 2: 255, 3: 255}),
        ((ROAD, ROAD), {}),
        ((ROAD, SKY), {1: 3}),
        ((ROAD, SKY), {0: 2}),
        ((ROAD, SKY), {-1: 0}),
        ((ROAD, SKY), {255: 0}),
    ],
)
def test_impossible_classes_are_refused_and_nothing_is_written(
    copy: Path, labels: tuple[Label, ...], served_as: dict[int, int]
) -> None:
    before = Bundle(copy)
    with pytest.raises(ModelError, match="cannot have these classes"):
        relabelled(before, labels, served_as)
    assert Bundle(copy).sha256 == before.sha256
    assert not (copy / NAMINGS).exists()


def test_a_manifest_with_an_impossible_table_is_none(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["served_as"] = {"0": 1}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="not a manifest"):
        Bundle(copy)


def test_an_older_manifest_serves_every_cluster_as_itself(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    del manifest["served_as"]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert (Bundle(copy).manifest.served == np.arange(256)).all()
