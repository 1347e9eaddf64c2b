"""ROS 2 messages for bags, built from arrays without any ROS installation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unim2_core.sensing.bag_storage import NANOSECONDS
from unim2_core.sensing.bag_types import standard_types

_COEFFICIENTS = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}


@dataclass(frozen=True)
class Transform:
    """Pose of a child frame in its parent frame: p_parent = R p_child + t.

    Attributes:
        parent: frame that the pose is given in.
        child: frame whose pose it is.
        translation_m: t, metres.
        rotation_xyzw: R as a unit quaternion.
    """

    parent: str
    child: str
    translation_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


def stamp_ns(header: Any) -> int:
    """Stamp of a std_msgs/Header from a bag or from rclpy, nanoseconds."""
    return int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)


def header_message(stamp_ns: int, frame_id: str) -> Any:
    """Make a std_msgs/Header.

    Args:
        stamp_ns: nanoseconds since the epoch, before the year 2038.
        frame_id: coordinate frame.
    """
    seconds, nanoseconds = divmod(int(stamp_ns), NANOSECONDS)
    stamp = _type("builtin_interfaces/msg/Time")(seconds, nanoseconds)
    return _type("std_msgs/msg/Header")(stamp, frame_id)


def image_message(array: NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Any:
    """Make a sensor_msgs/Image.

    Args:
        array: (H, W) or (H, W, C), of the dtype that ``encoding`` names.
        encoding: ``rgb8``, ``mono8``, ``16UC1``, ``32FC1``, ...
        stamp_ns: time of exposure, nanoseconds.
        frame_id: optical frame of the camera.
    """
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    height, width = little.shape[:2]
    return _type("sensor_msgs/msg/Image")(
        header=header_message(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=little.nbytes // max(height, 1),
        data=little.reshape(-1).view(np.uint8),
    )


def compressed_image_message(data: bytes, format: str, stamp_ns: int, frame_id: str) -> Any:
    """Make a sensor_msgs/CompressedImage.

    Args:
        data: the encoded file.
        format: as image_transport writes it: ``jpeg``, ``rgb8; jpeg compressed bgr8``.
        stamp_ns: time of exposure, nanoseconds.
        frame_id: optical frame of the camera.
    """
    return _type("sensor_msgs/msg/CompressedImage")(
        header=header_message(stamp_ns, frame_id),
        format=format,
        data=np.frombuffer(data, np.uint8),
    )


def camera_info_message(
    width: int,
    height: int,
    k: ArrayLike,
    d: ArrayLike,
    stamp_ns: int,
    frame_id: str,
    distortion_model: str = "plumb_bob",
) -> Any:
    """Make a sensor_msgs/CameraInfo of a single camera: R is the identity and P is [K | 0].

    Args:
        width: columns, pixels.
        height: rows, pixels.
        k: (3, 3) intrinsics, pixels.
        d: distortion coefficients, padded with zeros to what the model takes.
        stamp_ns: stamp of the image that it belongs to, nanoseconds.
        frame_id: optical frame of the camera.
        distortion_model: ``plumb_bob``, ``rational_polynomial`` or ``equidistant``.
    """
    intrinsics = np.asarray(k, np.float64).reshape(3, 3)
    distortion = np.asarray(d, np.float64).reshape(-1)
    padding = max(_COEFFICIENTS[distortion_model] - distortion.size, 0)
    region = _type("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
    return _type("sensor_msgs/msg/CameraInfo")(
        header=header_message(stamp_ns, frame_id),
        height=height,
        width=width,
        distortion_model=distortion_model,
        d=np.pad(distortion, (0, padding)),
        k=intrinsics.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([intrinsics, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def transform_message(transforms: Sequence[Transform], stamp_ns: int) -> Any:
    """Make a tf2_msgs/TFMessage, for ``/tf`` or, written once, for ``/tf_static``.

    Args:
        transforms: poses, each of one child frame in its parent.
        stamp_ns: when they hold, nanoseconds.
    """
    vector = _type("geometry_msgs/msg/Vector3")
    quaternion = _type("geometry_msgs/msg/Quaternion")
    pose = _type("geometry_msgs/msg/Transform")
    stamped = _type("geometry_msgs/msg/TransformStamped")
    return _type("tf2_msgs/msg/TFMessage")(
        [
            stamped(
                header_message(stamp_ns, transform.parent),
                transform.child,
                pose(vector(*transform.translation_m), quaternion(*transform.rotation_xyzw)),
            )
            for transform in transforms
        ]
    )


def _type(name: str) -> Any:
    return standard_types().types[name]
