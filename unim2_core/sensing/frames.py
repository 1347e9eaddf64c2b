"""Stamped arrays that mean the same on every robot, and sets of them that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.sensing.calibration import Intrinsics

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded image of one sensor.

    What ``data`` holds depends on the sensor:

    ============ ======== ============ =====================================================
    sensor       dtype    shape        meaning
    ============ ======== ============ =====================================================
    rgb          uint8    (H, W, 3)    red, green, blue
    depth        float32  (H, W)       metres along the optical axis; 0 where not ``valid``
    thermal      float32  (H, W)       kelvin (``unit="K"``) or raw counts (``unit="counts"``)
    nir          float32  (H, W)       [0, 1] of the sensor's full scale
    polarization float32  (H, W, 3)    S0 in [0, 1], DoLP in [0, 1], AoLP in radians [0, pi)
    ============ ======== ============ =====================================================

    Attributes:
        sensor: name of the sensor, a key of the rig (``rgb``, ``depth``, ...).
        stamp_ns: time of exposure after the rig's offset, nanoseconds.
        data: the array, see above.
        frame_id: coordinate frame of the camera.
        valid: (H, W) bool, False where the sensor said nothing; None where all is valid.
        unit: unit of ``data``.
        topic: where it came from.
        camera: the camera's calibration; None where none was received.
    """

    sensor: str
    stamp_ns: int
    data: Array
    frame_id: str = ""
    valid: NDArray[np.bool_] | None = None
    unit: str = ""
    topic: str = ""
    camera: Intrinsics | None = None

    @property
    def height(self) -> int:
        """Rows of the image, pixels."""
        return int(self.data.shape[0])

    @property
    def width(self) -> int:
        """Columns of the image, pixels."""
        return int(self.data.shape[1])


@dataclass(frozen=True, eq=False)
class FrameSet:
    """The frames that belong to one image of the reference sensor.

    Attributes:
        reference: name of the reference sensor, always present in ``frames``.
        frames: sensor name -> frame.
        missing: sensor name -> why it is not here.
        skew_s: sensor name -> its stamp minus the reference's, seconds.
    """

    reference: str
    frames: Mapping[str, Frame]
    missing: Mapping[str, str] = field(default_factory=dict)
    skew_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def stamp_ns(self) -> int:
        """Stamp of the reference image, nanoseconds."""
        return self.frames[self.reference].stamp_ns
