"""The labelled cloud: a point for each pixel of the reference image."""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from unim2_core.inference.pipeline import Segmentation
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.poses import Pose, SensorPoses
from unim2_core.sensing.reprojection import DepthProjection, fill_small_holes
from unim2_core.sensing.rig import Extrinsics, Rig

DEPTH = "depth"
LAYOUT = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "label", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "<u4", "u1", "u1"],
        "offsets": [0, 4, 8, 12, 16, 17],
        "itemsize": 20,
    }
)
"""One point; rgb is 0x00RRGGBB in the bytes of a float32, as PCL and RViz take it."""

_FIELDS = [
    PointField(name=name, offset=LAYOUT.fields[name][1], datatype=kind, count=1)
    for name, kind in (
        ("x", PointField.FLOAT32),
        ("y", PointField.FLOAT32),
        ("z", PointField.FLOAT32),
        ("rgb", PointField.FLOAT32),
        ("label", PointField.UINT8),
        ("confidence", PointField.UINT8),
    )
]


class CloudMaker:
    """Makes clouds; keeps what does not change from image to image. Not thread safe.

    Args:
        rig: says where the depth camera is; without extrinsics it is taken as aligned.

    Raises:
        RigError: the extrinsics of the depth camera are not a rigid motion.
    """

    def __init__(self, rig: Rig) -> None:
        self._poses = SensorPoses(rig)
        self._rays: tuple[Intrinsics, NDArray[np.float32]] | None = None
        self._projection: tuple[object, DepthProjection] | None = None

    def place(self, sensor: str, extrinsics: Extrinsics | None) -> None:
        """Take in where a sensor is; see ``SensorPoses``."""
        self._poses.place(sensor, extrinsics)

    def __call__(self, frames: FrameSet, result: Segmentation, header: Any) -> PointCloud2 | None:
        """The cloud of one segmented set; None without depth or the reference's calibration.

        Args:
            frames: the set.
            result: its segmentation.
            header: the reference image's, used unchanged.
        """
        reference, depth = frames.frames[frames.reference], frames.frames.get(DEPTH)
        if depth is None or reference.camera is None:
            return None
        size = (result.classes.shape[0], result.classes.shape[1])
        camera = reference.camera.scaled(size)
        own = reference is depth  # nothing to reproject
        pose = None if own else self._poses.seen_from(frames.reference, DEPTH)
        return cloud_message(
            self._depth(depth, camera, pose),
            self._rays_of(camera),
            result.picture(frames),
            result.classes,
            result.confidence,
            header,
        )

    def _depth(self, frame: Frame, camera: Intrinsics, pose: Pose | None) -> NDArray[np.float32]:
        """(h, w) float32 metres in the reference camera, NaN where nothing was measured."""
        size = (camera.height, camera.width)
        if pose is None or frame.camera is None:
            depth_m = np.asarray(frame.data, np.float32)
            if frame.valid is not None:
                depth_m = np.where(frame.valid, depth_m, np.nan)
            if depth_m.shape != size:
                depth_m = cv2.resize(depth_m, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            return np.where(depth_m > 0, depth_m, np.float32(np.nan))
        own = frame.camera.scaled((frame.height, frame.width))
        key = (own, camera, pose)
        if self._projection is None or self._projection[0] != key:
            self._projection = key, DepthProjection(own, pose, camera)
        inverse = fill_small_holes(self._projection[1](frame.data, frame.valid))
        if inverse.shape != size:
            inverse = cv2.resize(inverse, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        nowhere = np.full(size, np.nan, np.float32)
        return np.divide(1, inverse, out=nowhere, where=inverse > 0)

    def _rays_of(self, camera: Intrinsics) -> NDArray[np.float32]:
        if self._rays is None or self._rays[0] != camera:
            self._rays = camera, camera.rays()
        return self._rays[1]


def cloud_message(
    depth_m: NDArray[np.float32],
    rays: NDArray[np.float32],
    picture: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    header: Any,
) -> PointCloud2:
    """Make an organized cloud.

    Args:
        depth_m: (H, W) float32 along the optical axis, NaN where nothing was measured.
        rays: (H, W, 2) float32 x / z and y / z of each pixel.
        picture: (H, W, 3) uint8.
        classes: (H, W) uint8.
        confidence: (H, W) uint8.
        header: used unchanged.
    """
    height, width = depth_m.shape
    points = np.zeros((height, width), LAYOUT)
    points["x"] = rays[..., 0] * depth_m
    points["y"] = rays[..., 1] * depth_m
    points["z"] = depth_m
    red, green, blue = (picture[..., channel].astype(np.uint32) for channel in range(3))
    points["rgb"] = red << 16 | green << 8 | blue
    points["label"] = classes
    points["confidence"] = confidence
    message = PointCloud2()
    message.header = header
    message.height, message.width = height, width
    message.fields = _FIELDS
    message.point_step, message.row_step = LAYOUT.itemsize, LAYOUT.itemsize * width
    message.is_bigendian = False
    message.is_dense = False  # there may be NaN
    # rclpy checks anything but an array.array element by element, which takes seconds.
    data = array.array("B")
    data.frombytes(points.view(np.uint8).data)
    message.data = data
    return message
