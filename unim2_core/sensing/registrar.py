"""The registration of a robot's sensors, from frame set to frame set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from unim2_core.errors import RigError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.poses import Pose, SensorPoses
from unim2_core.sensing.registration import Assumption, DepthGrid, GridProjection, finer
from unim2_core.sensing.reprojection import DepthProjection, Inverse, Mask
from unim2_core.sensing.resampling import Size
from unim2_core.sensing.rig import Extrinsics, Rig
from unim2_core.sensing.warping import GridMap

DEPTH = "depth"


def with_depth(rig: Rig, sensors: Collection[str]) -> Rig:
    """The rig with some of its sensors, and with depth where it registers them.

    Args:
        rig: the whole rig.
        sensors: that are looked at; the reference is always kept.
    """
    needed = rig.only(sensors)
    placed = any(sensor.extrinsics for sensor in needed.sensors.values())
    return rig.only({*sensors, DEPTH}) if placed else needed


@dataclass(frozen=True, eq=False)
class Registration:
    """Where the sensors of one frame set see the cells of the reference's grid.

    Attributes:
        maps: sensor -> its map; None = aligned and of the same size, nothing is to be moved.
            Holds every sensor of the set but the reference.
        measured: (h, w) bool, True where depth was measured; None where the set has none that
            can be used.
    """

    maps: Mapping[str, GridMap | None]
    measured: Mask | None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What holds for a sensor as long as its cameras stay as they are."""

    key: object
    projection: GridProjection
    aligned: bool
    constant: GridMap  # without depth
    buffer: DepthProjection | None  # z-buffer of the sensor


class Registrar:
    """Registers frame sets; keeps what does not change from set to set. Not thread safe.

    Through depth where the set has a depth image with calibration and extrinsics; else, and for
    cells without a measurement, by an assumption. A sensor whose calibration or extrinsics are
    not known is taken as aligned.

    Args:
        rig: its sensors' extrinsics are used until :meth:`place` gives others.
        assumption: where things are that no depth was measured of.

    Raises:
        RigError: the extrinsics of a sensor are not a rigid motion.
    """

    def __init__(self, rig: Rig, assumption: Assumption | None = None) -> None:
        self.assumption = assumption or Assumption()
        self._poses = SensorPoses(rig)
        self._prepared: dict[str, _Prepared] = {}
        self._depth: tuple[object, DepthGrid] | None = None
        self._methods: dict[str, str] = {}
        self._said: set[str] = set()

    def place(self, sensor: str, extrinsics: Extrinsics | None) -> None:
        """Take in where a sensor other than the reference is; see ``SensorPoses``."""
        self._poses.place(sensor, extrinsics)

    @property
    def methods(self) -> dict[str, str]:
        """Sensor -> how it was registered last, in words."""
        return dict(self._methods)

    def news(self) -> list[str]:
        """How each sensor is registered; every sentence comes once."""
        sentences = [f"{name}: {method}" for name, method in self._methods.items()]
        fresh = [sentence for sentence in sentences if sentence not in self._said]
        self._said.update(fresh)
        return fresh

    def __call__(
        self, frames: FrameSet, grid: Size, grids: Mapping[str, Size] | None = None
    ) -> Registration:
        """Register one set into the camera that it is built around.

        Args:
            frames: images with their cameras.
            grid: (height, width) of the reference's grid, cells.
            grids: the same of sensors whose grid has another size.

        Raises:
            RigError: a grid has no cells.
        """
        sizes = {name: (grids or {}).get(name, grid) for name in frames.frames}
        if any(min(size) < 1 for size in (grid, *sizes.values())):
            raise RigError(
                "a grid without cells",
                expected="rows and columns greater than zero",
                found=f"{grid}, {dict(sizes)}",
                remedy="check the sizes that the images are encoded at",
            )
        home = frames.reference
        camera = frames.frames[home].camera
        reference = camera.scaled(grid) if camera else None
        depth = self._usable_depth(frames)
        inverse = measured = None
        if depth and reference:
            inverse, measured = self._cell_depth(*depth, reference)
        maps = {
            name: self._map(home, frame, grid, sizes[name], reference, depth, inverse)
            for name, frame in frames.frames.items()
            if name != home
        }
        return Registration(maps, measured)

    def _usable_depth(self, frames: FrameSet) -> tuple[Frame, Intrinsics, Pose] | None:
        """The depth frame, its camera at the image's size, and its pose."""
        frame = frames.frames.get(DEPTH)
        pose = self._poses.seen_from(frames.reference, DEPTH)
        if frame is None or frame.camera is None or pose is None:
            return None
        return frame, frame.camera.scaled((frame.height, frame.width)), pose

    def _cell_depth(
        self, frame: Frame, camera: Intrinsics, pose: Pose, reference: Intrinsics
    ) -> tuple[Inverse, Mask]:
        key = (camera, pose, reference)
        if self._depth is None or self._depth[0] != key:
            self._depth = key, DepthGrid(camera, pose, reference, self.assumption)
        return self._depth[1](frame.data, frame.valid)

    def _map(
        self,
        home: str,
        frame: Frame,
        grid: Size,
        size: Size,
        reference: Intrinsics | None,
        depth: tuple[Frame, Intrinsics, Pose] | None,
        inverse: Inverse | None,
    ) -> GridMap | None:
        name, pose = frame.sensor, self._poses.seen_from(home, frame.sensor)
        unknown = [
            f"camera_info of {sensor}"
            for sensor, known in ((home, reference), (name, frame.camera))
            if known is None
        ]
        unknown += [f"extrinsics of {sensor}" for sensor in self._poses.unknown(home, name)]
        if reference is None or frame.camera is None or pose is None:
            self._methods[name] = (
                f"taken as aligned with {home} and scaled to its size: "
                f"no {' and no '.join(unknown)}"
            )
            return _unmoved(grid, size)
        prepared = self._prepare(name, frame.camera.scaled(size), pose, reference, depth)
        if prepared.aligned:
            self._methods[name] = f"aligned with {home}, as its extrinsics say"
            return _unmoved(grid, size)
        if depth is None or inverse is None:
            self._methods[name] = (
                f"registered without depth, as if everything were {self.assumption}"
            )
            return prepared.constant
        self._methods[name] = (
            f"registered through depth; what has no depth as if it were {self.assumption}"
        )
        if prepared.buffer is None:
            return prepared.projection(inverse, None)
        nearest = prepared.buffer(depth[0].data, depth[0].valid)
        return prepared.projection(inverse, (nearest, prepared.buffer.camera))

    def _prepare(
        self,
        name: str,
        sensor: Intrinsics,
        pose: Pose,
        reference: Intrinsics,
        depth: tuple[Frame, Intrinsics, Pose] | None,
    ) -> _Prepared:
        depth_key = depth and depth[1:]
        key = (sensor, pose, reference, depth_key)
        kept = self._prepared.get(name)
        if kept is None or kept.key != key:
            projection = GridProjection(reference, sensor, pose)
            buffer = None
            if depth and name != DEPTH:  # the depth camera sees all that it measured
                _, camera, place = depth
                buffer = DepthProjection(camera, pose.inverse @ place, finer(sensor))
            assumed = self.assumption.inverse_depth(reference.rays())
            kept = _Prepared(
                key, projection, projection.aligned, projection(assumed, None), buffer
            )
            self._prepared[name] = kept
        return kept


def _unmoved(grid: Size, size: Size) -> GridMap | None:
    return None if size == grid else GridMap.stretched(grid, size)
