from __future__ import annotations

import os
from pathlib import Path

import pytest
from perilous import drives_in

from unim2_core.errors import DataError
from unim2_core.fleet.drives import list_drives, named


def bag_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "metadata.yaml").write_text("a bag")
    (path / f"{path.name}_0.mcap").write_bytes(b"12345")
    return path


def test_folders_and_files_are_found_in_order(tmp_path: Path) -> None:
    drives_in(tmp_path / "site", 2)
    bag_folder(tmp_path / "site" / "aa")
    (tmp_path / "site" / "notes.md").write_text("not a drive")
    told: list[str] = []
    found = list_drives([f"{tmp_path}/site/*"], told.append)
    assert [drive.name for drive in found] == ["aa", "d00", "d01"]
    assert found[0].address == str(tmp_path / "site" / "aa") and found[0].size == 10
    assert len(told) == 1 and "1 paths are no bags" in told[0] and "notes.md" in told[0]
    # A pattern that also finds what is in the folder of a bag.
    assert list_drives([f"{tmp_path}/**"], told.append) == found


def test_drives_that_are_called_alike_are_told_apart_and_keep_their_names(tmp_path: Path) -> None:
    for robot in ("a", "b"):
        bag_folder(tmp_path / robot / "monday")
    first = list_drives([f"{tmp_path}/b/*"])
    assert [drive.name for drive in first] == ["monday"]
    both = named(list_drives([f"{tmp_path}/*/*"]), {first[0].address: "monday"})
    assert both[1].name == "monday"
    assert both[0].name.startswith("monday-") and len(both[0].name) == 15


def test_a_list_names_drives_beside_it_and_elsewhere(tmp_path: Path) -> None:
    drives_in(tmp_path / "site", 3)
    bag_folder(tmp_path / "other")
    (tmp_path / "site" / "fleet.txt").write_text(f"# ours\nd0[12].mcap\n\n{tmp_path}/other\n")
    found = list_drives([f"{tmp_path}/site/fleet.txt"])
    assert [drive.name for drive in found] == ["other", "d01", "d02"]
    with pytest.raises(DataError, match="cannot read the list"):
        list_drives([f"{tmp_path}/none.txt"])


def test_a_drive_that_is_recorded_again_has_another_mark(tmp_path: Path) -> None:
    folder = drives_in(tmp_path / "site", 1)
    (before,) = list_drives([f"{folder}/*"])
    file = folder / "d00.mcap"
    os.utime(file, ns=(1, 1))
    (after,) = list_drives([f"{folder}/*"])
    assert before.mark != after.mark and before.address == after.address


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no drives"):
        list_drives([f"{tmp_path}/*"])
    with pytest.raises(DataError, match="cannot read nosuch://"):
        list_drives(["nosuch://bucket/*"])
