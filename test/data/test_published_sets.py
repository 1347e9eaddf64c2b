"""NYU, MFNet and MCubeS from files: imitations in the real layout, the release's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from image_samples import random_arrays, save, write_mcubes, write_mfnet, write_nyu

from unim2_core.data.data_sets import open_data_set
from unim2_core.data.mcubes import polarization
from unim2_core.data.nyu import NYU13
from unim2_core.errors import DataError
from unim2_core.sensing.modalities import MODALITIES, Encoder
from unim2_core.sensing.resampling import five_crop_boxes, resize_published


@pytest.fixture(scope="module")
def golden(parity_dir: Path) -> dict[str, Any]:
    with np.load(parity_dir / "datasets.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def golden_root(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    write_nyu(root / "nyu", {1: golden, 2: golden, 3: golden}, test=(3,))
    write_mfnet(root / "mfnet", {"1D": golden}, ("1D", "1D_flip"), ("1D", "1D_flip"))
    write_mcubes(root / "MCubeS", {"a": golden, "b": golden}, test=("b",))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """All three data sets, two images each, other images in every place."""
    a, b = random_arrays(1), random_arrays(2)
    write_nyu(tmp_path / "nyu", {3: a, 12: b}, test=(12,))
    write_mfnet(tmp_path / "mfnet", {"1D": a, "2N": b}, ("1D", "1D_flip"), ("2N",))
    write_mcubes(tmp_path / "MCubeS", {"a": a, "b": b}, test=("b",))
    return tmp_path


MCUBES_ALL = ("rgb", "nir", "aolp", "dolp")
CASES = {
    "nyu/out13": ("nyu", 0, ("rgb", "depth")),
    "nyu/out4": ("nyu4", 0, ("rgb", "depth")),
    "mfnet/plain": ("mfnet", 0, ("rgb", "thermal")),
    "mfnet/flip": ("mfnet", 1, ("rgb", "thermal")),
    "mcubes/out": ("mcubes", 0, MCUBES_ALL),
}


@pytest.mark.parametrize("case", CASES)
def test_whole_images_equal_the_release(
    golden: dict[str, Any], golden_root: Path, case: str
) -> None:
    data, number, modalities = CASES[case]
    side = int(golden["res"])
    source = open_data_set(
        data, golden_root, split="test", preset="paper", modalities=modalities, size=(side, side)
    )
    picture = list(source)[number]
    for name in modalities:
        found = MODALITIES["rgb"].normalize(picture.images[name])
        np.testing.assert_allclose(found, golden[f"{case}/{name}"], atol=1e-6)
    np.testing.assert_array_equal(picture.labels, golden[f"{case}/label"])
    assert source.label_size == (side, side)


@pytest.mark.parametrize("data", ["nyu", "mfnet", "mcubes"])
def test_labels_of_crops_equal_the_release(
    golden: dict[str, Any], golden_root: Path, data: str
) -> None:
    source = open_data_set(data, golden_root, preset="paper", size=(16, 16))
    pictures = list(source)
    assert len(pictures) == source.limit == golden[f"crop/{data}/n_files"]
    for crop in range(5):
        expected = golden[f"crop/{data}/{crop}/loader_label_res16"]
        np.testing.assert_array_equal(pictures[crop].labels, expected)


def test_crops_of_the_paper_go_through_the_release_s_jpeg_store(root: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = next(iter(open_data_set("mfnet", root, preset="paper", size=(16, 16))))
    upright = random_arrays(1)["mfnet/rgba"]
    top, left, height, width = five_crop_boxes(48, 64, 0.5)[0]
    crop = upright[top : top + height, left : left + width, :3]
    path = root / "crop.jpg"
    image.fromarray(np.ascontiguousarray(crop)).save(path, "JPEG")
    stored = np.asarray(image.open(path).convert("RGB"))
    np.testing.assert_array_equal(picture.images["rgb"], resize_published(stored, (16, 16)))
    assert (stored != crop).any()


def test_jpeg_files_are_read_as_the_release_reads_them(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    arrays = random_arrays()
    smooth = cv2.GaussianBlur(arrays["nyu/rgb_upright"], (0, 0), 4)
    write_nyu(tmp_path, {1: arrays | {"nyu/rgb_upright": smooth}}, test=(1,), suffix=".jpg")
    picture = next(iter(open_data_set("nyu", tmp_path, split="test", preset="paper")))
    stored = image.open(tmp_path / "RGB/0001.jpg").convert("RGB")
    upright = np.asarray(stored).transpose(1, 0, 2)
    np.testing.assert_array_equal(picture.images["rgb"], resize_published(upright, (320, 320)))


def test_defaults_of_the_presets(root: Path) -> None:
    sizes = {
        (preset, split): open_data_set("nyu", root, preset=preset, split=split).size
        for preset in ("paper", "robot")
        for split in ("train", "test")
    }
    assert sizes == {
        ("paper", "train"): (224, 224),
        ("paper", "test"): (320, 320),
        ("robot", "train"): (224, 304),  # 24x32 crops, to multiples of 16
        ("robot", "test"): (48, 64),  # never larger than the image
    }


@pytest.mark.parametrize("data", ["nyu", "nyu4", "mfnet", "mcubes"])
@pytest.mark.parametrize("preset", ["paper", "robot"])
@pytest.mark.parametrize("crops", ["five", "random", "none"])
def test_every_source_keeps_its_promises(root: Path, data: str, preset: Any, crops: Any) -> None:
    source = open_data_set(data, root, split="all", preset=preset, crops=crops)
    pictures = list(source)
    assert (
        len(pictures)
        == source.limit
        == (3 if data == "mfnet" else 2) * (1 if crops == "none" else 5)
    )
    for picture, again in zip(pictures, source, strict=True):
        assert tuple(picture.images) == source.modalities
        for name, image in picture.images.items():
            assert image.shape == (*source.size, 3) and image.dtype == np.uint8
            np.testing.assert_array_equal(image, again.images[name])
        assert picture.labels is not None and picture.labels.shape == source.label_size
        assert picture.labels.dtype == np.uint8
        assert set(np.unique(picture.labels)) <= {*range(len(source.classes.names)), 255}
    assert len({picture.name for picture in pictures}) == len(pictures)
    for encoding in source.encodings.values():
        assert Encoder.from_description(encoding).describe() == encoding


def test_splits_and_sources(root: Path) -> None:
    def names(data: str, split: Any) -> list[str]:
        return [p.name for p in open_data_set(data, root, split=split, crops="none")]

    assert names("nyu", "train") == ["0003"]
    assert names("nyu", "test") == ["0012"]
    assert names("nyu", "all") == ["0003", "0012"]
    assert names("mfnet", "all") == ["1D", "1D_flip", "2N"]
    pictures = list(open_data_set("mfnet", root))
    assert [picture.source for picture in pictures] == [0] * 10  # the mirrored one is no other
    (root / "nyu/val.txt").write_text("3\n")  # the release looks for it first
    assert names("nyu", "test") == ["0003"]


def test_a_mirrored_image_is_mirrored_in_everything(root: Path) -> None:
    plain, flipped = open_data_set("mfnet", root, crops="none")
    for name in ("rgb", "thermal"):
        np.testing.assert_array_equal(flipped.images[name], plain.images[name][:, ::-1])
    np.testing.assert_array_equal(flipped.labels, plain.labels[:, ::-1])


def test_robot_loses_nothing_and_merges_labels_once(root: Path) -> None:
    arrays = random_arrays(1)
    pictures = list(open_data_set("nyu", root, size=(32, 32)))
    labels = NYU13.of(arrays["nyu/label_raw"])
    boxes = five_crop_boxes(48, 64, 0.5)
    for picture, (top, left, height, width) in zip(pictures, boxes, strict=True):
        part = (slice(top, top + height), slice(left, left + width))
        # 24 rows to 32 and 32 columns to 32: only rows are stretched.
        nearest = ((np.arange(32) + 0.5) * 24 / 32).astype(int)
        np.testing.assert_array_equal(picture.labels, labels[part][nearest])
        for name, key in (("rgb", "rgb_upright"), ("depth", "hha")):
            crop = arrays[f"nyu/{key}"][part]
            expected = cv2.resize(crop, (32, 32), interpolation=cv2.INTER_LINEAR)
            np.testing.assert_array_equal(picture.images[name], expected)


def test_a_crop_shares_the_thermal_range_of_its_image(root: Path) -> None:
    ramp = np.zeros((48, 64, 4), np.uint8)
    ramp[..., 3] = np.arange(64) * 4
    save(root / "mfnet/images/1D.png", ramp)
    pictures = list(open_data_set("mfnet", root, size=(16, 16)))
    left, right = (pictures[crop].images["thermal"].mean() for crop in (0, 1))
    assert left < 80 and right > 175


def test_the_robot_s_centre_crop_scores_the_published_labels(root: Path) -> None:
    robot, paper = (
        open_data_set("nyu", root, split="test", preset=preset, framing="centre_crop")
        for preset in ("robot", "paper")
    )
    ours, theirs = next(iter(robot)), next(iter(paper))
    assert robot.size == paper.size == (320, 320)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    # The images show the same part: up to interpolation they are the same.
    smooth = [
        cv2.blur(each.images["rgb"].astype(np.float32), (41, 41))[50:-50, 50:-50]
        for each in (ours, theirs)
    ]
    assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.98


def test_physical_polarization_of_mcubes() -> None:
    angle = np.linspace(0.01, 3.1, 40, dtype=np.float32).reshape(4, 10)
    rgb = np.full((4, 10, 3), 32768, np.uint16)
    dolp = np.full((4, 10), 0.5, np.float32)
    for factor in (1, 2):  # sine and cosine of the angle, or of twice the angle
        found = polarization(rgb, np.sin(factor * angle), np.cos(factor * angle), dolp)
        np.testing.assert_allclose(found[..., 2], angle, atol=1e-4)
        np.testing.assert_allclose(found[..., :2], 0.5, atol=1e-3)


def test_the_fingerprint_tells_what_decides_the_pictures(root: Path) -> None:
    def fingerprint(**options: Any) -> str:
        return open_data_set("nyu", root, **options).fingerprint()

    base = fingerprint()
    assert base == fingerprint() and len(base) == 64
    others = [
        fingerprint(preset="paper"),
        fingerprint(split="test"),
        fingerprint(crops="none"),
        fingerprint(crops="random"),
        fingerprint(size=(32, 32)),
        fingerprint(framing="centre_crop"),
        fingerprint(modalities=("rgb",)),
        open_data_set("nyu4", root).fingerprint(),
    ]
    save(root / "nyu/HHA/0003.png", random_arrays(5)["nyu/hha"])
    others.append(fingerprint())
    assert len({base, *others}) == len(others) + 1


def test_all_missing_files_are_named_at_once(root: Path) -> None:
    names = [str(number) for number in range(100, 120)]
    (root / "nyu/train.txt").write_text("\n".join(names))
    with pytest.raises(DataError) as caught:
        open_data_set("nyu", root)
    text = str(caught.value)
    assert "60 of 60 files" in text and "and 50 more" in text
    assert text.count("RGB/0") == 4 and "Labels/0100.png" in text


@pytest.mark.parametrize(
    ("data", "file", "content", "expected"),
    [
        ("nyu", "nyu/HHA/0003.png", None, "cannot read"),
        ("nyu", "nyu/HHA/0003.png", np.zeros((48, 60, 3), np.uint8), "48x60 pixels"),
        ("nyu", "nyu/Labels/0003.png", np.zeros((40, 64), np.uint8), "40x64 pixels"),
        ("nyu", "nyu/Labels/0003.png", np.zeros((48, 64), np.uint16), "uint16"),
        ("nyu", "nyu/RGB/0003.png", np.zeros((64, 48, 3), np.uint16), "uint16"),
        ("mfnet", "mfnet/images/1D.png", np.zeros((48, 64, 3), np.uint8), "four channels"),
        ("mcubes", "MCubeS/polL_color/a.png", np.zeros((48, 256), np.uint16), "three channels"),
        ("mcubes", "MCubeS/polL_aolp_sin/a.npy", np.zeros((48, 256), np.uint8), "float32"),
        ("mcubes", "MCubeS/polL_aolp_cos/a.npy", None, "cannot read"),
        ("mcubes", "MCubeS/GT/a.png", np.zeros((48, 100), np.uint8), "192 columns"),
    ],
)
def test_a_bad_file_is_named(
    root: Path, data: str, file: str, content: Any, expected: str
) -> None:
    if content is None:
        (root / file).write_bytes(b"not an image")
    else:
        save(root / file, content)
    with pytest.raises(DataError) as caught:
        list(open_data_set(data, root))
    assert str(root / file) in str(caught.value) and expected in str(caught.value)


@pytest.mark.parametrize(
    ("data", "folder", "options", "expected"),
    [
        ("kitti", ".", {}, "nyu, nyu4, mfnet, mcubes, or a .yaml file"),
        ("nyu", ".", {"modalities": ("rgb", "thermal")}, "rgb, depth"),
        ("nyu", ".", {"modalities": ("rgb", "rgb")}, "each once"),
        ("nyu", ".", {"size": (100, 100)}, "multiples of 16"),
        ("nyu", "MCubeS", {"split": "test"}, "val.txt or test.txt"),
        ("mfnet", "MCubeS", {"split": "all"}, "train.txt and test.txt"),
        ("mcubes", "elsewhere", {}, "no such folder"),
        ("nyu", None, {}, "--root"),
    ],
)
def test_what_cannot_be_opened_is_explained(
    root: Path, data: str, folder: str | None, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        open_data_set(data, None if folder is None else root / folder, **options)
    assert expected in str(caught.value)
