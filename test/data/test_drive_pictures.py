"""Pictures of drives: which, how they are encoded and registered, and what is said of the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bag_samples import images, write_mcap
from scenes import HEIGHT, PERIOD_NS, START_NS, WIDTH, rgb_image, thermal_image, write_bag

from unim2_core.data.drive_labels import SYNTHETIC, DriveLabels, LabelReader
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.drive_writer import START_NS as ZERO_NS
from unim2_core.data.drives import is_taken
from unim2_core.data.labels import Classes
from unim2_core.data.synthetic import CLASSES, DriveConfig, default_rig, render, write_drive
from unim2_core.errors import BagError, DataError, DecodeError, ModelError, RigError
from unim2_core.sensing.bag_messages import camera_info_message, image_message
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import Encoder
from unim2_core.sensing.registrar import with_depth
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.warping import warp_labels

BOTH = encodings_of(("rgb", "thermal"))
RIG = Rig.default(("rgb", "thermal"))
CONFIG = DriveConfig(
    seed=4,
    duration_s=0.85,
    width=192,
    height=144,
    dropout=0.0,
    sensors=("rgb", "depth", "thermal"),
    ground_truth="all",
)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "drive"
    write_drive(path, CONFIG, workers=1)
    return path


def pictures(*bags: Path, rig: Rig = RIG, encodings=BOTH, **options) -> DrivePictures:
    return DrivePictures(bags, rig, encodings, **{"warn": pytest.fail, **options})


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("wanted", [1, 2, 3, 6, 7, 150])
def test_items_are_spread_evenly(count: int, wanted: int) -> None:
    taken = [index for index in range(count + 5) if is_taken(index, wanted, count)]
    assert len(taken) == min(wanted, count)
    assert taken[0] == 0 and taken[-1] < count
    gaps = np.diff([*taken, count])
    assert gaps.max() - gaps.min() <= 1


def test_every_set_becomes_a_picture(tmp_path: Path) -> None:
    stamps = write_bag(tmp_path / "drive", 5)
    source = pictures(tmp_path / "drive")
    assert (source.modalities, source.size, source.limit) == (("rgb", "thermal"), (64, 96), 5)
    assert (source.label_size, source.classes, source.encodings) == (None, None, BOTH)
    found = list(source)
    assert [each.stamp_ns for each in found] == stamps
    assert [each.source for each in found] == list(range(5))
    assert found[2].name == f"drive {stamps[2]}"
    for index, each in enumerate(found):
        np.testing.assert_array_equal(each.images["rgb"], rgb_image(index))
        assert each.images["thermal"].shape == (64, 96, 3)
        assert not each.valid and not each.maps and each.labels is None
    assert "taken as aligned" in source.registration["thermal"]
    assert not source.absent and not source.missing


def test_a_few_frames_of_each_drive(tmp_path: Path) -> None:
    stamps = write_bag(tmp_path / "one", 10)
    write_bag(tmp_path / "two", 2, first=10)
    source = pictures(tmp_path / "one", tmp_path / "two", frames=3)
    found = list(source)
    assert source.limit == len(found) == 5
    assert [each.stamp_ns for each in found[:3]] == [stamps[0], stamps[4], stamps[7]]
    assert [each.sequence for each in found] == [0, 0, 0, 1, 1]
    assert [each.source for each in found] == [0, 1, 2, 3, 4]


def test_sizes_are_those_of_the_first_image_unless_given(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as writer:
        image = np.zeros((480, 640, 3), np.uint8)
        writer.write("/rgb/image", image_message(image, "rgb8", START_NS, "c"), START_NS)
    rgb = encodings_of(("rgb",))
    source = pictures(tmp_path / "drive", encodings=rgb)
    assert source.size == next(iter(source)).images["rgb"].shape[:2] == (320, 432)
    assert pictures(tmp_path / "drive", encodings=rgb, size=(48, 64)).size == (48, 64)
    with pytest.raises(DataError, match="multiples of 16"):
        pictures(tmp_path / "drive", encodings=rgb, size=(48, 72))
    assert pictures(tmp_path / "drive", encodings=rgb, size=(48, 72), patch_size=8)


def test_relative_thermal_starts_anew_with_each_drive_and_each_iteration(tmp_path: Path) -> None:
    for drive, offset in (("cold", 0), ("warm", 3000)):
        with BagWriter(tmp_path / drive) as writer:
            for index in range(3):
                stamp = START_NS + index * PERIOD_NS
                counts = thermal_image(index) + np.uint16(offset + 400 * index)
                writer.write(
                    "/rgb/image", image_message(rgb_image(index), "rgb8", stamp, "c"), stamp
                )
                writer.write("/thermal/image", image_message(counts, "mono16", stamp, "t"), stamp)
    source = pictures(tmp_path / "cold", tmp_path / "warm")
    first, second = list(source), list(source)
    encoder = Encoder("thermal")
    for index, each in enumerate(first):
        np.testing.assert_array_equal(each.images["thermal"], second[index].images["thermal"])
        if index == 3:
            encoder.reset()
        offset = 3000 * (index // 3) + 400 * (index % 3)
        data = (thermal_image(index % 3) + np.uint16(offset)).astype(np.float32)
        frame = Frame("thermal", each.stamp_ns, data, unit="counts")
        np.testing.assert_array_equal(each.images["thermal"], encoder.encode(frame, (64, 96))[0])


def test_synthetic_drives_are_registered_through_depth_and_have_labels(synthetic: Path) -> None:
    rig = default_rig(CONFIG)
    source = pictures(synthetic, rig=rig, labels=SYNTHETIC, size=(96, 128), patch_size=8)
    assert set(source.rig.sensors) == {"rgb", "depth", "thermal"}
    assert source.label_size == (96, 128) and source.classes.names == CLASSES
    found = list(source)
    assert len(found) == source.limit == 9
    assert "through depth" in source.registration["thermal"]
    moved, unmoved = [], []
    for each in found:
        time_s = (each.stamp_ns - ZERO_NS) * 1e-9
        assert each.labels.shape == (96, 128) and each.labels.max() < len(CLASSES)
        grid_map = each.maps.get("thermal")
        if grid_map is None:
            assert "thermal" not in each.images
            continue
        assert grid_map.valid.shape == grid_map.source == (12, 16)
        assert "rgb" not in each.maps
        thermal = render(CONFIG, time_s, "thermal").label
        rows, columns = (
            np.linspace(0, length - 1, count).round().astype(int)
            for length, count in zip(thermal.shape, (12, 16), strict=True)
        )
        cells = thermal[rows[:, None], columns]
        centres = each.labels[4::8, 4::8]
        moved.append((warp_labels(cells, grid_map) == centres)[grid_map.valid].mean())
        unmoved.append((cells == centres)[grid_map.valid].mean())
    assert len(moved) >= 5
    assert np.mean(moved) > np.mean(unmoved) + 0.03


def test_labels_are_those_of_the_stamp(synthetic: Path) -> None:
    source = pictures(
        synthetic, rig=default_rig(CONFIG), labels=SYNTHETIC, size=(144, 192), frames=3
    )
    start_ns = next(iter(source)).stamp_ns
    with LabelReader(synthetic, SYNTHETIC) as labels:
        assert labels.at(start_ns - 1) is None
        np.testing.assert_array_equal(labels.at(start_ns), next(iter(source)).labels)
        assert labels.at(start_ns + 1) is None
        assert labels.at(start_ns + 10**12) is None
    for each in source:
        truth = render(CONFIG, (each.stamp_ns - ZERO_NS) * 1e-9, "rgb").label
        np.testing.assert_array_equal(each.labels, truth)


def test_labels_that_are_missing_or_no_labels(tmp_path: Path) -> None:
    labels = DriveLabels("/truth", Classes(("a", "b"), ((0, 0, 0),) * 2, (255, 1)))
    write_bag(tmp_path / "bare", 2)
    with pytest.raises(BagError, match=r"no labels(.|\n)*/truth(.|\n)*no such topic"):
        pictures(tmp_path / "bare", labels=labels)
    ids = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    ids[:, WIDTH // 4 :] = 1
    for name, image, encoding in (("some", ids, "mono8"), ("colour", rgb_image(0), "rgb8")):
        with BagWriter(tmp_path / name) as writer:
            for index in range(3):
                stamp = START_NS + index * PERIOD_NS
                colour = image_message(rgb_image(index), "rgb8", stamp, "c")
                writer.write("/rgb/image", colour, stamp)
                if index != 1:
                    writer.write("/truth", image_message(image, encoding, stamp, "c"), stamp)
    said: list[str] = []
    source = pictures(
        tmp_path / "some", encodings=encodings_of(("rgb",)), labels=labels, warn=said.append
    )
    found = [each.labels for each in source]
    assert found[1] is None and found[0].shape == (64, 96)
    assert (found[2][:, :48] == 255).all() and (found[2][:, 48:] == 1).all()
    assert said == [f"1 pictures of {tmp_path / 'some'} have no label of their stamp"]
    with pytest.raises(DataError, match="mono8"):
        list(pictures(tmp_path / "colour", encodings=encodings_of(("rgb",)), labels=labels))


def test_depth_is_only_read_where_it_registers_something() -> None:
    rig = default_rig(CONFIG)
    assert set(with_depth(rig, {"thermal"}).sensors) == {"rgb", "depth", "thermal"}
    assert set(with_depth(rig, {"rgb"}).sensors) == {"rgb"}
    assert set(with_depth(Rig.default(), {"thermal"}).sensors) == {"rgb", "thermal"}


def test_missing_modalities_are_left_out_and_named(tmp_path: Path) -> None:
    write_bag(tmp_path / "bare", 3, thermal=False)
    said: list[str] = []
    encodings = encodings_of(("rgb", "thermal", "nir"))
    source = pictures(tmp_path / "bare", encodings=encodings, warn=said.append)
    assert source.absent == [
        "thermal stays missing: no drive has images of thermal",
        "nir stays missing: the rig has no sensor nir",
    ]
    assert all(set(each.images) == {"rgb"} for each in source)
    list(source)
    assert len(said) == 1 and "no topic /thermal/image" in said[0]
    assert sum(source.missing.values()) == 6
    assert source.missing["nir: not in the rig"] == 3


def test_holes_are_masked(synthetic: Path) -> None:
    source = pictures(
        synthetic, rig=default_rig(CONFIG), encodings=encodings_of(("rgb", "depth")), frames=1
    )
    [only] = list(source)
    assert only.valid["depth"].shape == source.size
    assert 0.2 < only.valid["depth"].mean() < 1
    assert set(only.valid) == {"depth"}


def test_calibration_that_never_comes_is_an_error_one_that_is_late_is_not(tmp_path: Path) -> None:
    rig, hha = Rig.default(("rgb", "depth")), encodings_of(("rgb", "hha"))
    depth = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    info = camera_info_message(
        WIDTH, HEIGHT, [[80, 0, 48], [0, 80, 32], [0, 0, 1]], [0] * 5, 0, "d"
    )
    for name, known_from in (("never", 9), ("late", 2)):
        with BagWriter(tmp_path / name) as writer:
            for index in range(4):
                stamp = START_NS + index * PERIOD_NS
                if index == known_from:
                    writer.write("/depth/camera_info", info, stamp - PERIOD_NS // 2)
                for topic, image, encoding in (
                    ("/rgb/image", rgb_image(index), "rgb8"),
                    ("/depth/image", depth, "16UC1"),
                ):
                    writer.write(topic, image_message(image, encoding, stamp, "c"), stamp)
    with pytest.raises(RigError, match="need the camera's calibration"):
        list(pictures(tmp_path / "never", rig=rig, encodings=hha))
    late = list(pictures(tmp_path / "late", rig=rig, encodings=hha))
    assert [len(each.images) for each in late] in ([1, 1, 2, 2], [1, 2, 2, 2])


def test_the_fingerprint_follows_every_input(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 3)
    base = pictures(tmp_path / "drive")
    shutil.copytree(tmp_path / "drive", tmp_path / "elsewhere")
    assert pictures(tmp_path / "elsewhere").fingerprint() == base.fingerprint()
    others = [
        pictures(tmp_path / "drive", frames=2),
        pictures(tmp_path / "drive", size=(32, 48)),
        pictures(tmp_path / "drive", patch_size=8),
        pictures(tmp_path / "drive", encodings=encodings_of(("rgb",))),
        pictures(tmp_path / "drive", rig=RIG.model_copy(update={"deadline_s": 0.2})),
        pictures(tmp_path / "drive", tmp_path / "drive"),
    ]
    [file] = (tmp_path / "elsewhere").glob("*.mcap")
    file.write_bytes(file.read_bytes() + b"\0")
    changed = DrivePictures([tmp_path / "elsewhere"], RIG, BOTH, warn=lambda text: None)
    digests = {each.fingerprint() for each in (base, *others, changed)}
    assert len(digests) == 2 + len(others)


def test_undecodable_images_and_damage_are_said_once(tmp_path: Path) -> None:
    for name, broken in (("some", {1}), ("all", {0, 1, 2})):
        with BagWriter(tmp_path / name) as writer:
            for index in range(3):
                stamp = START_NS + index * PERIOD_NS
                message = image_message(rgb_image(index), "rgb8", stamp, "c")
                message.step = 1 if index in broken else message.step
                writer.write("/rgb/image", message, stamp)
    said: list[str] = []
    rgb = encodings_of(("rgb",))
    source = pictures(tmp_path / "some", encodings=rgb, warn=said.append)
    assert len(list(source)) == len(list(source)) == 2
    assert len(said) == 1 and said[0].startswith(f"1 images of {tmp_path / 'some'} were left out")
    with pytest.raises(DecodeError, match="length of a row"):
        pictures(tmp_path / "all", encodings=rgb)
    cut = write_mcap(tmp_path / "cut.mcap", images(count=20))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    said.clear()
    source = pictures(cut, encodings=rgb, warn=said.append)
    assert 0 < len(list(source)) <= source.limit < 20
    assert len(said) == 1 and "read up to its damage" in said[0]


def test_what_cannot_give_pictures_is_an_error(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 2)
    with pytest.raises(DataError, match="at least one drive"):
        pictures()
    with pytest.raises(BagError, match="no images of the sensor rgb"):
        pictures(tmp_path / "drive", rig=Rig.default(("rgb",), root="/front/"))
    with pytest.raises(ModelError, match="sonar"):
        encodings_of(("rgb", "sonar"))
    with pytest.raises(ModelError, match="at least one modality"):
        encodings_of(())
    with BagWriter(tmp_path / "stampless") as writer:
        writer.write("/rgb/image", image_message(rgb_image(0), "rgb8", 0, "c"), START_NS)
    with pytest.raises(RigError, match="stamp zero"):
        pictures(tmp_path / "stampless", encodings=encodings_of(("rgb",)))


def test_the_published_preset_never_crops(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 2)
    paper = encodings_of(("rgb",), "paper")
    assert len(list(pictures(tmp_path / "drive", encodings=paper))) == 2
    with pytest.raises(ModelError, match=r"would crop(.|\n)*64x96"):
        list(pictures(tmp_path / "drive", encodings=paper, size=(96, 96)))


def test_sets_without_any_of_the_modalities_are_passed_over(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 4, thermal_delay_ns=150_000_000)
    source = pictures(tmp_path / "drive", encodings=encodings_of(("thermal",)))
    found = list(source)
    assert 0 < len(found) < 4
    assert [each.source for each in found] == list(range(len(found)))
    assert found[0].images.keys() == {"thermal"}
