from __future__ import annotations

from pathlib import Path

import pytest
from scenes import write_bag

from unim2_core.data.drives import check_stamps, check_topics, synchronised, with_topics
from unim2_core.errors import BagError, RigError
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.rig import Rig


def test_a_bag_becomes_sets_in_order(tmp_path: Path) -> None:
    stamps = write_bag(tmp_path / "drive", 5)
    intake = Intake(Rig.default(("rgb", "thermal")))
    with BagReader(tmp_path / "drive") as reader:
        sets = list(synchronised(reader, intake))
    assert [matched.stamp_ns for matched in sets] == stamps
    assert all(set(matched.members) == {"rgb", "thermal"} for matched in sets)


def test_topics_can_be_named_one_by_one() -> None:
    rig = with_topics(Rig.default(("rgb",)), {"rgb": "/a", "depth": "/b"})
    assert {name: sensor.topic for name, sensor in rig.sensors.items()} == {
        "rgb": "/a",
        "depth": "/b",
    }


def test_a_missing_reference_names_the_topics_that_are_there(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 2)
    rig = with_topics(Rig.default(("rgb",)), {"rgb": "/front/image"})
    with (
        BagReader(tmp_path / "drive") as reader,
        pytest.raises(BagError, match=r"/front/image(.|\n)*/rgb/image, /thermal/image"),
    ):
        check_topics(reader, rig)


def test_a_missing_auxiliary_is_a_warning_unless_required(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 2, thermal=False)
    rig = Rig.default(("rgb", "thermal"))
    with BagReader(tmp_path / "drive") as reader:
        [warning] = check_topics(reader, rig)
        assert "thermal is missing" in warning
        sensors = {"rgb": {"topic": "/rgb/image"}}
        sensors["thermal"] = {"topic": "/thermal/image", "required": True}
        with pytest.raises(BagError, match="sensor thermal"):
            check_topics(reader, Rig.parse({"sensors": sensors}))


def test_a_required_sensor_that_never_matches_is_explained(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 5, thermal_delay_ns=60_000_000_000)
    sensors = {"rgb": {"topic": "/rgb/image"}}
    sensors["thermal"] = {"topic": "/thermal/image", "required": True}
    intake = Intake(Rig.parse({"sensors": sensors}))
    with BagReader(tmp_path / "drive") as reader:
        sets = list(synchronised(reader, intake))
    assert sets == []
    with pytest.raises(RigError, match="required thermal missing"):
        check_stamps(intake, len(sets))
