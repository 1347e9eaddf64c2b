from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parent))
from version_samples import add, make_bundle, weights

from unim2_core.errors import ModelError, Unim2Error
from unim2_core.model.bundle import MANIFEST, NETWORK, WEIGHTS, Bundle, Label
from unim2_core.model.given import ids_given, tables_given
from unim2_core.model.relabelling import put_back, relabelled
from unim2_core.model.versions import (
    HISTORY,
    add_version,
    approve,
    changing,
    go_back,
    read_history,
    record,
    served,
    stored,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "small.unim2").path


def value(path: Path) -> float:
    return float(served(path).weights["mean"][0])


def digests(path: Path) -> dict[str, str]:
    names = ["manifest.json", *Bundle(path).manifest.files]
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}


def test_an_accepted_version_is_served_and_says_where_it_comes_from(path: Path) -> None:
    first = Bundle(path)
    now = add(path)
    assert (value(path), now.manifest.number, now.manifest.parent) == (1, 1, first.sha256)
    assert len(now.parity()["images"]) == 1
    assert served(path).sha256 == now.sha256 != first.sha256
    [entry] = read_history(path)
    assert (entry.event, entry.number, entry.parent) == ("accepted", 1, 0)
    assert (entry.sha256, entry.details) == (now.sha256, {"figure": 1.5})
    copied = Path(shutil.copytree(path, path.with_name("copy.unim2")))
    assert value(copied) == 1


def test_going_back_serves_the_same_bytes(path: Path) -> None:
    first = digests(path)
    add(path)
    second = digests(path)
    add(path)
    with changing(path):
        go_back(path)
        assert digests(path) == second
        go_back(path, steps=1)
        assert digests(path) == first
        go_back(path, to=2)
        assert value(path) == 2
        go_back(path, steps=2)
        assert digests(path) == first
    assert [entry.event for entry in read_history(path)][2:] == ["rollback"] * 4


def test_after_going_back_numbers_and_parents_go_on(path: Path) -> None:
    add(path)
    with changing(path):
        go_back(path)
    assert add(path).manifest.number == 2
    assert read_history(path)[-1].parent == 0
    with changing(path):
        assert go_back(path).manifest.number == 0


@pytest.mark.parametrize(("steps", "to"), [(1, None), (9, None), (1, 7)])
def test_there_may_be_nothing_to_go_back_to(path: Path, steps: int, to: int | None) -> None:
    with changing(path), pytest.raises(ModelError, match=r"unim2 history"):
        go_back(path, steps=steps, to=to)
    assert value(path) == 0


def test_what_waits_for_review_is_served_only_when_a_person_says_so(path: Path) -> None:
    before = digests(path)
    add(path, "review")
    assert digests(path) == before and stored(path, 1)
    with changing(path):
        with pytest.raises(ModelError, match="version 1"):
            go_back(path, to=1)
        approve(path, 1)
        assert value(path) == 1
        go_back(path)
        assert digests(path) == before
        go_back(path, to=1)
        assert value(path) == 1
        with pytest.raises(ModelError, match="waiting for review"):
            approve(path, 0)


def test_what_was_rejected_is_remembered_without_its_weights(path: Path) -> None:
    before = digests(path)
    with changing(path):
        record(path, "rejected", 1, 0, None, {"reasons": ["bad"]})
    assert digests(path) == before
    assert add(path).manifest.number == 2
    with changing(path), pytest.raises(ModelError):
        go_back(path, to=1)


def test_storage_is_bounded_and_what_is_served_stays(path: Path) -> None:
    for _ in range(6):
        add(path, kept=2)
    assert [number for number in range(8) if stored(path, number)] == [0, 5, 6]
    with changing(path):
        go_back(path, to=5)
        with pytest.raises(ModelError, match="version 3"):
            go_back(path, to=3)
        go_back(path, to=0)
    assert value(path) == 0


def test_a_damaged_version_is_not_gone_back_to(path: Path) -> None:
    add(path)
    add(path)
    (path / "versions/0001/weights.safetensors").write_bytes(b"rust")
    with changing(path), pytest.raises(ModelError, match="damaged"):
        go_back(path)
    assert value(path) == 2


def test_two_processes_do_not_change_a_model_at_once(path: Path) -> None:
    with changing(path), pytest.raises(ModelError, match="another process"), changing(path):
        pass


def test_no_bundle_no_history(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot open"), changing(tmp_path / "none.unim2"):
        pass


def test_a_damaged_history_is_explained_and_the_model_still_served(path: Path) -> None:
    add(path)
    (path / HISTORY).write_text("{")
    with pytest.raises(ModelError, match=r"history\.json"):
        read_history(path)
    assert value(path) == 1


@pytest.mark.parametrize("limit", [0, 100, 700])
def test_a_full_disk_changes_nothing_that_is_served(path: Path, limit: int) -> None:
    add(path)
    before = digests(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(Unim2Error, match="cannot write"):
            add(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert digests(path) == before
    assert add(path).manifest.number == 2
    assert not list((path / "versions").glob(".*"))


def test_whenever_a_process_is_killed_an_accepted_version_is_served(path: Path) -> None:
    program = Path(__file__).with_name("version_samples.py")
    add(path)
    calls, ended = 0, False
    seen = set()
    while not ended:
        calls += 1
        copy = Path(shutil.copytree(path, path.with_name(f"killed-{calls}.unim2")))
        command = [sys.executable, str(program), str(copy), str(calls)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        ended = done.returncode == 0
        now = served(copy)  # every digest is checked
        accepted = {e.sha256 for e in read_history(copy) if e.event == "accepted"}
        assert now.sha256 in accepted
        seen.add(now.number)
        np.testing.assert_array_equal(now.weights["mean"], weights(now.number)["mean"])
        after = add(copy)
        assert after.manifest.number in (2, 3)
        assert not list((copy / "versions").glob(".*"))
        shutil.rmtree(copy)
    assert calls > 10
    assert seen == {1, 2}


def test_names_that_a_person_gave_stay_when_another_version_is_served(path: Path) -> None:
    add(path)
    cluster = Bundle(path).manifest.labels[1]
    named = relabelled(Bundle(path), [cluster.model_copy(update={"name": "road"})], {0: 1})
    assert named.manifest.labels_version == 1
    with changing(path):
        back = go_back(path)
    assert (value(path), back.manifest.number) == (0, 0)
    assert [label.name for label in back.manifest.labels] == ["road"]
    assert back.manifest.served_as == {0: 1}
    assert back.manifest.labels_version == 1  # the same table as before


def test_a_table_of_labels_never_gets_the_number_of_another(path: Path) -> None:
    labels = Bundle(path).manifest.labels
    first = relabelled(Bundle(path), labels[:1], {1: 0})
    second = relabelled(put_back(first), labels[1:], {0: 1})
    assert (first.manifest.labels_version, second.manifest.labels_version) == (1, 2)


def test_classes_are_not_renamed_while_another_process_changes_the_model(path: Path) -> None:
    bundle = Bundle(path)
    with changing(path), pytest.raises(ModelError, match="being changed by another process"):
        relabelled(bundle, bundle.manifest.labels[:1], {1: 0})
    assert Bundle(path).sha256 == bundle.sha256


def test_the_weights_of_the_backbone_belong_to_every_version(path: Path) -> None:
    (path / NETWORK).write_bytes(b"weights")
    manifest = Bundle(path).manifest
    files = {**manifest.files, NETWORK: hashlib.sha256(b"weights").hexdigest()}
    (path / MANIFEST).write_text(manifest.model_copy(update={"files": files}).model_dump_json())
    assert add(path).manifest.files[NETWORK] == files[NETWORK]


def labelled(*ids: int) -> tuple[Label, ...]:
    return tuple(Label(id=i, name=f"thing {i}", color=(i, i, i)) for i in ids)


def test_a_version_that_could_not_be_opened_is_not_begun(path: Path) -> None:
    before = digests(path)
    bundle = Bundle(path)
    twice = bundle.manifest.model_copy(update={"labels": labelled(0, 1, 1)})
    with changing(path), pytest.raises(ModelError, match="several"):
        add_version(bundle, "accepted", twice, lambda folder: None, {})
    assert digests(path) == before
    assert read_history(path) == [] and not stored(path, 1)


def test_names_go_back_within_a_version_and_no_further(path: Path) -> None:
    relabelled(relabelled(Bundle(path), labelled(0, 1), {}), labelled(1), {0: 1})
    put_back(Bundle(path))
    add(path)  # its parent is a manifest that is kept
    with pytest.raises(ModelError, match="unim2 rollback"):
        put_back(Bundle(path))
    assert value(path) == 1
    adapted = Bundle(path)
    relabelled(adapted, labelled(0), {1: 0})
    assert put_back(Bundle(path)).sha256 == adapted.sha256


def test_ids_and_tables_that_any_version_gave_out_are_not_given_again(path: Path) -> None:
    def given() -> tuple[int, int]:
        return ids_given(path, [e.details for e in read_history(path)]), tables_given(path)

    assert given() == (2, 0)
    with changing(path):
        bundle = Bundle(path)
        grown = bundle.manifest.replaced(labels=labelled(0, 1, 2), labels_version=1)
        fill = {"identity": {"ids": 3}}
        add_version(bundle, "accepted", grown, lambda f: save_file(weights(1), f / WEIGHTS), fill)
        go_back(path)
    assert Bundle(path).manifest.clusters == 2
    assert given() == (3, 2)  # the first version is named as the other
    assert relabelled(Bundle(path), labelled(0), {1: 0}).manifest.labels_version == 3
    shutil.rmtree(path / "versions" / "0001")  # not kept any more
    assert given() == (3, 3)
