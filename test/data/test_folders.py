"""Folders of images that a YAML file describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from image_samples import save

from unim2_core.data.data_sets import open_data_set
from unim2_core.data.folder_file import FolderFile
from unim2_core.data.folder_labels import folder_classes
from unim2_core.data.image_files import read_array
from unim2_core.data.mfnet import mfnet_images
from unim2_core.errors import DataError, Unim2Error
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import Encoder
from unim2_core.sensing.resampling import resize_published

SIZE = (32, 48)
RNG = np.random.default_rng(0)
CWFID = {
    "modalities": {
        "red": {"as": "rgb", "glob": "images/*.png", "channels": [0]},
        "nir": {"as": "nir", "glob": "images/*.png", "channels": [1]},
    },
    "labels": {
        "glob": "annotations/*.png",
        "colors": {"0,0,0": 0, "0,255,0": 1, "255,0,0": 2},
    },
    "classes": ["soil", "crop", "weed"],
    "split": {"train": [0, 2], "test": [2, 3]},
}


def describe(folder: Path, content: Any, name: str = "data.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


def colour(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (*SIZE, *shape)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five scenes: colour, thermal, and label colours."""
    for number in range(5):
        save(tmp_path / f"rgb/{number}.png", colour(3))
        save(tmp_path / f"thermal/{number}.png", colour())
        label = np.zeros((*SIZE, 3), np.uint8)
        label[:, : 8 * (number + 1)] = (255, 0, 0)
        label[-1] = (1, 2, 3)
        save(tmp_path / f"labels/{number}_gt.png", label)
    return tmp_path


def content(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "modalities": {
            "rgb": {"as": "rgb", "glob": "rgb/*.png"},
            "thermal": {"as": "thermal", "glob": "thermal/*.png"},
        },
        "labels": {"glob": "labels/*.png", "colors": {"0,0,0": 0, "255,0,0": 1}},
        "classes": ["ground", "thing"],
        "split": {"train": [0, 3], "test": [3, 5]},
    }
    return base | changes


def test_pictures_labels_and_splits(folder: Path) -> None:
    path = describe(folder, content())
    test = open_data_set(path, split="test")
    assert test.modalities == ("rgb", "thermal") and test.size == test.label_size == SIZE
    assert test.classes is not None and test.classes.names == ("ground", "thing")
    assert test.classes.colors == ((0, 0, 0), (255, 0, 0))
    assert test.encodings["thermal"] == Encoder("thermal").describe()
    first, second = test
    assert (first.name, second.name) == ("3", "4") and test.limit == 2
    expected = np.zeros(SIZE, np.uint8)
    expected[:, :32] = 1
    expected[-1] = 255  # not listed
    np.testing.assert_array_equal(first.labels, expected)
    train = open_data_set(path)
    assert train.limit == 15 and [picture.source for picture in train][::5] == [0, 1, 2]
    assert open_data_set(path, split="all").limit == 5
    only = open_data_set(path, modalities=("thermal",), crops="none")
    assert [tuple(picture.images) for picture in only] == [("thermal",)] * 3


def test_a_class_has_the_first_colour_that_is_listed_for_it() -> None:
    labels = {"glob": "*", "colors": {"9,9,9": 255, "1,1,1": 0, "2,2,2": 0, "3,3,3": 1}}
    file = FolderFile.model_validate(content(labels=labels))
    classes = folder_classes(file)
    assert classes is not None and classes.colors == ((1, 1, 1), (3, 3, 3))


def test_without_a_split_everything_is_for_training_and_nothing_for_testing(folder: Path) -> None:
    path = describe(folder, content(split={}, labels=None, classes=None))
    source = open_data_set(path, crops="none")
    assert source.limit == 5 and source.classes is None and source.label_size is None
    assert all(picture.labels is None for picture in source)
    with pytest.raises(DataError, match="names no images for test"):
        open_data_set(path, split="test")


def test_list_files_may_leave_out_suffixes(folder: Path) -> None:
    (folder / "train.txt").write_text("4\n0.png\n\n")
    path = describe(folder, content(split={"train": "train.txt"}))
    assert [p.name for p in open_data_set(path, crops="none")] == ["4", "0"]
    (folder / "train.txt").write_text("4\n9\n8\n")
    with pytest.raises(DataError, match=r"lists 2 images(.|\n)*9, 8"):
        open_data_set(path)


FRAMES = {
    "depth in millimetres": (
        {"as": "depth"},
        np.where(np.eye(*SIZE), 0, 1500).astype(np.uint16),
        Frame("depth", 0, np.full(SIZE, 1.5, np.float32), valid=~np.eye(*SIZE, dtype=bool)),
    ),
    "depth in other units": (
        {"as": "depth", "depth": {"unit_m": 0.0002}},
        np.full(SIZE, 10000, np.uint16),
        Frame("depth", 0, np.full(SIZE, 2.0, np.float32)),
    ),
    "depth in metres with gaps": (
        {"as": "depth"},
        np.where(np.eye(*SIZE), np.nan, 3.0).astype(np.float32),
        Frame("depth", 0, np.full(SIZE, 3.0, np.float32), valid=~np.eye(*SIZE, dtype=bool)),
    ),
    "radiometric thermal": (
        {"as": "thermal", "thermal": {"conversion": "centikelvin"}},
        np.full(SIZE, 30015, np.uint16),
        Frame("thermal", 0, np.full(SIZE, 300.15, np.float32), unit="K"),
    ),
    "constant relative thermal of 16 bits": (
        {"as": "thermal"},
        np.full(SIZE, 30015, np.uint16),
        Frame("thermal", 0, np.full(SIZE, 30015, np.float32), unit="counts"),
    ),
    "nir of 16 bits": (
        {"as": "nir"},
        np.full(SIZE, 32768, np.uint16),
        Frame("nir", 0, np.full(SIZE, 32768 / 65535, np.float32)),
    ),
    "nir of 12 bits": (
        {"as": "nir", "full_scale": 4095},
        np.full(SIZE, 2048, np.uint16),
        Frame("nir", 0, np.full(SIZE, 2048 / 4095, np.float32)),
    ),
    "rgb of 16 bits": (
        {"as": "rgb"},
        np.full((*SIZE, 3), 0x80FF, np.uint16),
        Frame("rgb", 0, np.full((*SIZE, 3), 0x80, np.uint8)),
    ),
    "dolp of 8 bits": (
        {"as": "dolp"},
        np.full(SIZE, 51, np.uint8),
        Frame("polarization", 0, np.full((*SIZE, 3), (1, 0.2, 0), np.float32)),
    ),
    "aolp in radians": (
        {"as": "aolp"},
        np.full(SIZE, 0.5, np.float32),
        Frame("polarization", 0, np.full((*SIZE, 3), (1, 1, 0.5), np.float32)),
    ),
    "aolp in degrees": (
        {"as": "aolp", "aolp_unit": "deg"},
        np.full(SIZE, 90, np.uint8),
        Frame("polarization", 0, np.full((*SIZE, 3), (1, 1, np.pi / 2), np.float32)),
    ),
    "aolp over the range of its type": (
        {"as": "aolp"},
        np.full(SIZE, 51, np.uint8),
        Frame("polarization", 0, np.full((*SIZE, 3), (1, 1, np.pi / 5), np.float32)),
    ),
}


@pytest.mark.parametrize("case", FRAMES)
def test_files_become_frames_that_a_robot_would_encode_alike(tmp_path: Path, case: str) -> None:
    options, image, frame = FRAMES[case]
    suffix = ".png" if image.dtype.kind == "u" else ".tiff"
    save(tmp_path / f"images/0{suffix}", image)
    path = describe(tmp_path, {"modalities": {"one": options | {"glob": "images/*"}}})
    (picture,) = open_data_set(path, crops="none")
    expected, valid = Encoder(options["as"]).encode(frame, SIZE)
    np.testing.assert_array_equal(picture.images["one"], expected)
    found = picture.valid.get("one")
    assert (valid is None) == (found is None)
    assert valid is None or (found == valid).all()


def test_an_angle_is_weighed_by_the_degree_beside_it(tmp_path: Path) -> None:
    save(tmp_path / "a/0.npy", np.full(SIZE, 0.5, np.float32))
    save(tmp_path / "d/0.npy", np.full(SIZE, 0.25, np.float32))
    modalities = {
        "angle": {"as": "aolp", "glob": "a/*.npy"},
        "degree": {"as": "dolp", "glob": "d/*.npy"},
    }
    path = describe(tmp_path, {"modalities": modalities})
    (picture,) = open_data_set(path, crops="none", modalities=("angle",))
    assert (picture.images["angle"][..., 2] == 64).all()
    before = open_data_set(path, modalities=("angle",)).fingerprint()
    save(tmp_path / "d/0.npy", np.full(SIZE, 0.5, np.float32))
    assert open_data_set(path, modalities=("angle",)).fingerprint() != before


@pytest.mark.parametrize("preset", ["paper", "robot"])
def test_ids_become_classes(tmp_path: Path, preset: Any) -> None:
    raw = np.zeros(SIZE, np.uint16)
    raw[0], raw[1], raw[2] = 300, 7, 9
    save(tmp_path / "rgb/0.png", colour(3))
    save(tmp_path / "gt/0.png", raw)
    base = {"modalities": {"rgb": {"as": "rgb", "glob": "rgb/*"}}, "classes": ["a", "b"]}
    labels = {"glob": "gt/*", "ids": {0: 0, 300: 1, 7: 255}}
    path = describe(tmp_path, base | {"labels": labels})
    (picture,) = open_data_set(path, crops="none", preset=preset, framing="full_frame", size=SIZE)
    assert picture.labels is not None
    assert picture.labels[:4, 0].tolist() == [1, 255, 255, 0]
    path = describe(tmp_path, base | {"labels": {"glob": "gt/*", "ignore": 0}})
    raw[:] = 1
    raw[0] = 0
    save(tmp_path / "gt/0.png", raw)
    (picture,) = open_data_set(path, crops="none", size=SIZE)
    assert picture.labels is not None
    assert picture.labels[:2, 0].tolist() == [255, 1]  # ids are classes, 0 is none of them


def test_cwfid(data_dir: Path, tmp_path: Path) -> None:
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
        for path in sorted((data_dir / "cwfid" / name).iterdir())[:3]:
            (tmp_path / name / path.name).symlink_to(path)
    source = open_data_set(describe(tmp_path, CWFID), split="test")
    assert source.size == (320, 432) and source.limit == 1
    (picture,) = source
    assert picture.name == "003_image"
    assert picture.labels is not None and set(np.unique(picture.labels)) <= {0, 1, 2}
    plants = np.isin(picture.labels, (1, 2))
    # Plants reflect the near infrared and absorb red: channels were not mixed up.
    red, nir = (picture.images[name][..., 0].astype(float) for name in ("red", "nir"))
    assert (nir - red)[plants].mean() > (nir - red)[~plants].mean() + 20
    assert (picture.images["red"] == picture.images["red"][..., :1]).all()


def test_mfnet_files_as_a_folder_give_what_the_data_set_gives(
    data_dir: Path, tmp_path: Path
) -> None:
    for path in sorted((data_dir / "mfnet_samples").glob("*.png")):
        (tmp_path / path.name).symlink_to(path)
    modalities = {
        "rgb": {"as": "rgb", "glob": "*.png", "channels": [0, 1, 2]},
        "thermal": {"as": "thermal", "glob": "*.png", "channels": [3]},
    }
    path = describe(tmp_path, {"modalities": modalities})
    for picture in open_data_set(path, split="all", preset="paper"):
        expected = mfnet_images(read_array(tmp_path / f"{picture.name}.png"))
        for name, image in picture.images.items():
            np.testing.assert_array_equal(image, resize_published(expected[name], (320, 320)))


def test_depth_and_infrared_of_a_real_camera(data_dir: Path, tmp_path: Path) -> None:
    modalities = {
        "rgb": {"as": "rgb", "glob": "peach/rgb/*.*"},
        "depth": {"as": "depth", "glob": "peach/depth/*.png"},
        "infrared": {"as": "nir", "glob": "peach/infrared/*.png", "full_scale": 4000},
    }
    (tmp_path / "peach").symlink_to(data_dir / "peach_rgbd_ir")
    source = open_data_set(describe(tmp_path, {"modalities": modalities}), split="all")
    assert source.size == (320, 576) and source.limit == 5
    for picture in source:
        measured = picture.valid["depth"]
        raw = read_array(tmp_path / f"peach/depth/{picture.name}.png")
        assert abs(measured.mean() - (raw > 0).mean()) < 0.02
        assert set(picture.valid) == {"depth"}
        # Within arm's length: brighter than 1.6 m, see encode_depth.
        assert np.median(picture.images["depth"][measured]) > 150


def test_roadscene_pairs_of_many_sizes(data_dir: Path, tmp_path: Path) -> None:
    for name in ("crop_LR_visible", "cropinfrared"):
        (tmp_path / name).mkdir()
        for path in sorted((data_dir / "roadscene" / name).iterdir())[:6]:
            (tmp_path / name / path.name).symlink_to(path)
    modalities = {
        "rgb": {"as": "rgb", "glob": "crop_LR_visible/*.jpg"},
        "thermal": {"as": "thermal", "glob": "cropinfrared/*.jpg"},
    }
    path = describe(tmp_path, {"modalities": modalities})
    for preset in ("paper", "robot"):
        source = open_data_set(path, preset=preset, split="all")
        shapes = {i.shape for picture in source for i in picture.images.values()}
        assert shapes == {(*source.size, 3)}


def test_the_order_of_files_and_the_file_decide_the_fingerprint(folder: Path) -> None:
    base = open_data_set(describe(folder, content())).fingerprint()
    options = content()
    options["modalities"]["thermal"]["thermal"] = {"conversion": "decikelvin"}
    assert open_data_set(describe(folder, options)).fingerprint() != base
    options = content()
    options["labels"]["colors"] = {"0,0,0": 1, "255,0,0": 0}
    assert open_data_set(describe(folder, options)).fingerprint() != base
    assert open_data_set(describe(folder, content())).fingerprint() == base


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"root": "/data"}, "root: Extra inputs"),
        ({"modalities": {}}, "modalities"),
        ({"modalities": {"labels": {"as": "rgb", "glob": "rgb/*"}}}, "not labels"),
        ({"modalities": {"a.b": {"as": "rgb", "glob": "rgb/*"}}}, "letters"),
        ({"modalities": {"rgb": {"as": "lidar", "glob": "rgb/*"}}}, "'rgb', 'depth'"),
        ({"modalities": {"rgb": {"as": "rgb", "glob": "rgb/*", "unit": 1}}}, "unit"),
        ({"modalities": {"rgb": {"as": "rgb", "glob": "rgb/*", "channels": [0, 1]}}}, "1 or 3"),
        ({"modalities": {"rgb": {"as": "rgb", "glob": "rgb/*", "depth": {}}}}, "option of depth"),
        ({"classes": None}, "labels need classes"),
        ({"classes": ["one"]}, "classes from 0 to 0"),
        ({"labels": {"glob": "labels/*", "colors": {"0,0": 0}}}, "red,green,blue"),
        ({"labels": {"glob": "labels/*", "colors": {"0,0,0": 0}, "ids": {0: 0}}}, "not both"),
        ({"split": {"train": [3, 3]}}, "start < stop <= 5"),
        ({"split": {"train": [0, 6]}}, "start < stop <= 5"),
        ({"split": {"train": "absent.txt"}}, "absent.txt"),
    ],
)
def test_a_file_that_is_wrong_is_explained(folder: Path, change: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        open_data_set(describe(folder, content() | change))
    assert expected in str(caught.value)


def test_no_yaml_no_file_no_root(folder: Path) -> None:
    (folder / "bad.yaml").write_text("a: [")
    for name in ("bad.yaml", "absent.yaml"):
        with pytest.raises(DataError, match="cannot read the data set's file"):
            FolderFile.load(folder / name)
    with pytest.raises(DataError, match="no --root"):
        open_data_set(describe(folder, content()), folder)


def test_files_that_cannot_be_paired(folder: Path) -> None:
    path = describe(folder, content())
    (folder / "labels/4_gt.png").unlink()
    with pytest.raises(DataError, match=r"4 files; without a partner: .*rgb/4.png"):
        open_data_set(path)
    save(folder / "labels/4_gt.png", np.zeros((*SIZE, 3), np.uint8))
    (folder / "thermal/2.png").unlink()
    with pytest.raises(DataError, match=r"4 files; without a partner: .*rgb/2.png"):
        open_data_set(path)
    save(folder / "thermal/7.png", colour())  # as many again, but not the same
    with pytest.raises(DataError, match=r"5 files; without a partner: .*rgb/2.png"):
        open_data_set(path)
    for number in range(8):
        (folder / f"thermal/{number}.png").unlink(missing_ok=True)
    with pytest.raises(DataError, match="no files of thermal"):
        open_data_set(path)


@pytest.mark.parametrize(
    ("file", "image", "expected"),
    [
        ("thermal/1.png", colour(3), "in colour"),
        ("thermal/1.png", colour()[:30], "30x48 pixels"),
        ("labels/1_gt.png", colour(3)[:30], "30x48 pixels"),
        ("labels/1_gt.png", np.full((*SIZE, 3), 9, np.uint8), "nothing in"),
    ],
)
def test_a_bad_file_is_named(folder: Path, file: str, image: Any, expected: str) -> None:
    save(folder / file, image)
    if expected == "30x48 pixels" and "labels" in file:
        image[:] = 0
        save(folder / file, image)
    with pytest.raises(DataError) as caught:
        list(open_data_set(describe(folder, content()), crops="none"))
    assert str(folder / file) in str(caught.value) and expected in str(caught.value)


def test_kinds_that_a_file_cannot_be(folder: Path) -> None:
    for kind, expected in (("depth", "eight bits"), ("nir", "in colour")):
        glob = "thermal/*.png" if kind == "depth" else "rgb/*.png"
        path = describe(folder, {"modalities": {"one": {"as": kind, "glob": glob}}})
        with pytest.raises(DataError, match=expected):
            open_data_set(path)
    wrong = {"modalities": {"one": {"as": "nir", "glob": "thermal/*.png", "channels": [3]}}}
    with pytest.raises(DataError, match="too few channels"):
        open_data_set(describe(folder, wrong))
    depth = {"modalities": {"one": {"as": "depth", "glob": "thermal/*.png"}}}
    with pytest.raises(Unim2Error, match="no such encoding"):
        open_data_set(describe(folder, depth), preset="paper")
    save(folder / "warm/0.png", np.full(SIZE, 3000, np.uint16))
    warm = {"modalities": {"one": {"as": "thermal", "glob": "warm/*.png"}}}
    with pytest.raises(DataError, match="more than 8 bits"):
        open_data_set(describe(folder, warm), preset="paper")
