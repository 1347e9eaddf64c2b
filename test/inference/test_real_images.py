"""Bags made of real images from three kinds of camera pairs, segmented and read independently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.sensing.bag_messages import image_message, stamp_ns
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.rig import Rig

pytest.importorskip("torch", reason="making a model needs torch: pip install 'unim2[train]'")
pytestmark = pytest.mark.data

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
Scene = dict[str, tuple[np.ndarray, str]]


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image[..., ::-1].copy() if image.ndim == 3 else image


def roadscene(folder: Path) -> Iterator[Scene]:
    """RGB and 8-bit relative thermal."""
    for path in sorted((folder / "roadscene" / "crop_LR_visible").iterdir())[:12]:
        thermal = cv2.imread(str(folder / "roadscene" / "cropinfrared" / path.name), 0)
        yield {"rgb": (_read(path), "rgb8"), "thermal": (thermal, "mono8")}


def rgb_nir_polar(folder: Path) -> Iterator[Scene]:
    """RGB, NIR as the mean over the polarizer, and its four angles as a 2x2 mosaic."""
    for scene in sorted((folder / "rgb_nir_polar").iterdir()):
        raw = {
            angle: _read(scene / "Raw" / f"NIR_filtre_nir_{angle}_aligned.tif")
            for angle in (0, 45, 90, 135)
        }
        mosaic = np.empty_like(raw[0])
        for (row, column), angle in zip(np.ndindex(2, 2), (90, 45, 135, 0), strict=True):
            mosaic[row::2, column::2] = raw[angle][row::2, column::2]
        nir = (sum(image.astype(np.uint32) for image in raw.values()) // 4).astype(np.uint16)
        rgb = _read(scene / "sRGB.tif")
        if rgb.dtype == np.uint16:
            rgb = (rgb >> 8).astype(np.uint8)
        yield {
            "rgb": (rgb, "rgb8"),
            "nir": (nir, "mono16"),
            "polarization": (mosaic, "mono16"),
        }


def peach_rgbd(folder: Path) -> Iterator[Scene]:
    """RGB and depth in millimetres."""
    for path in sorted((folder / "peach_rgbd_ir" / "rgb").iterdir()):
        depth = _read(folder / "peach_rgbd_ir" / "depth" / path.name)
        yield {"rgb": (_read(path), "rgb8"), "depth": (depth, "16UC1")}


def _decoded(path: Path, topic: str) -> list[Any]:
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        return [item.decoded_message for item in reader.iter_decoded_messages(topics=[topic])]


@pytest.mark.parametrize(
    ("scenes", "modalities"),
    [(roadscene, "rgb,thermal"), (rgb_nir_polar, "rgb,nir,aolp,dolp"), (peach_rgbd, "rgb,depth")],
    ids=["roadscene", "rgb_nir_polar", "peach_rgbd_ir"],
)
def test_every_real_image_is_segmented_under_its_own_header(
    scenes: Any, modalities: str, data_dir: Path, tmp_path: Path
) -> None:
    bag, model, out = tmp_path / "real.mcap", tmp_path / "real.unim2", tmp_path / "out.mcap"
    sizes, stamps = [], []
    sensors: set[str] = set()
    with BagWriter(bag) as writer:
        for index, scene in enumerate(scenes(data_dir)):
            taken_ns = START_NS + index * PERIOD_NS
            stamps.append(taken_ns)
            sizes.append(scene["rgb"][0].shape[:2])
            sensors |= set(scene)
            for sensor, (image, encoding) in scene.items():
                message = image_message(image, encoding, taken_ns, f"{sensor}_optical_frame")
                writer.write(f"/{sensor}/image", message, taken_ns)
    rig = tmp_path / "rig.yaml"
    rig.write_text(Rig.default(tuple(sorted(sensors))).dump())
    common = ["--rig", str(rig)]
    runner = CliRunner()
    train = ["train", "--bag", str(bag), "--out", str(model), "--clusters", "6"]
    train += ["--steps", "20", "--cache", str(tmp_path / "cache"), "--backbone", "texture"]
    result = runner.invoke(app, [*train, "--modalities", modalities, *common])
    assert result.exit_code == 0, result.output
    result = runner.invoke(
        app, ["segment", str(bag), "--model", str(model), "--out", str(out), *common]
    )
    assert result.exit_code == 0, result.output

    reference = _decoded(bag, "/rgb/image")
    masks = _decoded(out, "/segment/segmentation")
    assert len(masks) == len(reference) == len(stamps)
    for mask, image, size in zip(masks, reference, sizes, strict=True):
        assert stamp_ns(mask.header) == stamp_ns(image.header)
        assert mask.header.frame_id == image.header.frame_id == "rgb_optical_frame"
        assert (mask.height, mask.width) == size
    classes = np.concatenate([np.unique(np.frombuffer(mask.data, np.uint8)) for mask in masks])
    assert len(set(classes.tolist())) >= 3
    for modality in modalities.split(","):
        assert f"{len(stamps)} (100 %)" in _row(result.output, modality)


def _row(output: str, modality: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(f"│ {modality} "))
