"""A drive and what a model makes of it, as a rerun recording: images, space and time at once.

Space is ``/world``: its root is that of tf where the drive has tf, else the reference camera.
``/world/rig`` is the reference camera; sensors with known extrinsics are below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import Unim2Error
from unim2_core.model.bundle import Manifest
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.poses import Pose
from unim2_core.sensing.rig import Extrinsics, Rig
from unim2_core.sensing.static_transforms import TransformTree
from unim2_core.showing.cloud import cloud
from unim2_core.showing.jpeg import jpeg
from unim2_core.showing.palette import distinct_colors

Image = NDArray[np.uint8]

APPLICATION = "unim2"
TIMELINE, COUNT = "stamp", "frame"
AXIS_M, PLANE_M = 0.15, 0.4
OPACITY = 0.5


class Answer(NamedTuple):
    """What a model made of a set.

    Attributes:
        classes: (H, W) uint8 class ids at the reference image's size.
        confidence: (H, W) uint8.
        latency_ms: stage -> milliseconds.
        version: of the model.
    """

    classes: Image
    confidence: Image
    latency_ms: Mapping[str, float]
    version: str


class Recording:
    """Writes a recording, frame set after frame set. Use as a context manager.

    Args:
        to: the ``.rrd`` file, or the address of a viewer that runs, ``rerun+http://...``.
        rig: the sensors.
        modalities: names of the pictures that will come, in the order of their views.
        manifest: of the model; None: its classes are not known.
        segmented: whether there will be answers; None: where there is a model.

    Raises:
        Unim2Error: rerun is not installed, or the file cannot be written.
        RigError: the extrinsics of a sensor are not a rigid motion.
    """

    def __init__(
        self,
        to: Path | str,
        rig: Rig,
        modalities: tuple[str, ...],
        manifest: Manifest | None,
        segmented: bool | None = None,
    ) -> None:
        self._rr = rerun()
        from unim2_core.showing.viewer_layout import layout

        self._poses = {
            name: Pose.of(sensor.extrinsics)
            for name, sensor in rig.sensors.items()
            if sensor.extrinsics is not None
        }
        self._poses[rig.reference] = Pose.identity()
        self._placed: dict[str, Extrinsics] = {}
        self._reference = rig.reference
        self._classes = () if manifest is None else tuple(x.id for x in manifest.labels)
        self._count = 0
        self._version = ""
        self._axes: object = None
        self._cameras: dict[str, object] = {}
        self._stream = self._rr.RecordingStream(APPLICATION)
        segmented = manifest is not None if segmented is None else segmented
        blueprint = layout(rig.reference, modalities, segmented)
        try:
            if isinstance(to, str):
                self._stream.connect_grpc(to, default_blueprint=blueprint)
            else:
                self._stream.save(to, default_blueprint=blueprint)
        except (OSError, RuntimeError) as error:
            raise Unim2Error(
                f"cannot write {to}",
                expected="a folder that can be written to, with room on its disk",
                found=str(error),
                remedy="choose another place with --save",
            ) from error
        self._log("about", self._about(manifest), static=True)
        others = [name for name in rig.sensors if name != rig.reference]
        for name, color in zip(others, distinct_colors(len(others)), strict=True):
            # The viewer's own colours are so alike that two sensors look like one.
            line = self._rr.SeriesLines(colors=[color], names=[name])
            self._log(f"skew/{name}", line, static=True)
        if manifest is not None:
            context = [(x.id, x.name, x.color) for x in manifest.labels]
            self._log("/", self._rr.AnnotationContext(context), static=True)
            for label in manifest.labels:
                line = self._rr.SeriesLines(colors=[label.color], names=[label.name])
                self._log(f"shares/{label.id}", line, static=True)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        self._stream.disconnect()

    def place(self, sensor: str, extrinsics: Extrinsics) -> None:
        """Take in where a sensor is, for example from tf.

        Raises:
            RigError: that is not a rigid motion.
        """
        if self._placed.get(sensor) != extrinsics:
            self._poses[sensor] = Pose.of(extrinsics)
            self._placed[sensor] = extrinsics
            self._cameras.pop(sensor, None)  # to be drawn anew

    def add(
        self,
        frames: FrameSet,
        pictures: Mapping[str, Image],
        registered: Mapping[str, Image],
        answer: Answer | None = None,
        transforms: TransformTree | None = None,
    ) -> None:
        """Write one set.

        Args:
            frames: the set.
            pictures: modality -> (h, w, 3) uint8, each in its own camera.
            registered: the same in the reference camera, of sensors that are not aligned.
            answer: what a model made of it.
            transforms: tf as it is now.
        """
        stream = self._stream
        stream.set_time(TIMELINE, timestamp=np.datetime64(frames.stamp_ns, "ns"))
        stream.set_time(COUNT, sequence=self._count)
        self._count += 1
        self._space(frames, transforms)
        for frame in frames.frames.values():
            self._camera(frame)
        for name, picture in pictures.items():
            self._log(f"modalities/{name}", self._image(picture))
        for name, picture in registered.items():
            self._log(f"registered/{name}", self._image(picture))
        reference = frames.frames[frames.reference]
        rgb = reference.sensor == "rgb"
        shown = np.asarray(reference.data) if rgb else next(iter(pictures.values()), None)
        if shown is not None:
            self._log(f"world/rig/{frames.reference}/image", self._image(shown))
        self._cloud(frames, reference, answer)
        for sensor, seconds in frames.skew_s.items():
            self._log(f"skew/{sensor}", self._rr.Scalars(1e3 * seconds))
        for sensor, reason in frames.missing.items():
            text = self._rr.TextLog(f"{sensor} is missing: {reason}", level="WARN")
            self._log(f"log/{sensor}", text)
        if answer is not None:
            self._answer(frames.reference, answer)

    def _answer(self, reference: str, answer: Answer) -> None:
        rr = self._rr
        classes = rr.SegmentationImage(answer.classes, opacity=OPACITY)
        self._log(f"world/rig/{reference}/classes", classes)
        self._log("mask", rr.SegmentationImage(answer.classes))
        self._log("confidence", self._image(answer.confidence))
        for stage, milliseconds in answer.latency_ms.items():
            self._log(f"latency/{stage}", rr.Scalars(milliseconds))
        self._log("latency/total", rr.Scalars(sum(answer.latency_ms.values())))
        counts = np.bincount(answer.classes.ravel(), minlength=256) / answer.classes.size
        for identifier in self._classes:
            self._log(f"shares/{identifier}", rr.Scalars(100 * counts[identifier]))
        if answer.version != self._version:
            self._version = answer.version
            text = f"model version {answer.version[:12]}"
            self._log("log/model", rr.TextLog(text, level="INFO"))
            self._log("version", rr.TextDocument(text))

    def _space(self, frames: FrameSet, transforms: TransformTree | None) -> None:
        """Where the reference camera is in the root of tf, and the frames of tf."""
        rr = self._rr
        frame = frames.frames[frames.reference].frame_id.lstrip("/")
        if transforms is None or frame not in transforms.frames:
            self._upright(rr.ViewCoordinates.RDF)
            return
        self._upright(rr.ViewCoordinates.RIGHT_HAND_Z_UP)
        root, pose = transforms.in_root(frame)
        self._log("world/rig", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        for name in transforms.frames:
            above, pose = transforms.in_root(name)
            if above == root:
                self._log(
                    f"world/tf/{name}",
                    rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]),
                    rr.TransformAxes3D(AXIS_M),
                )

    def _upright(self, axes: object) -> None:
        """Which way is up; it changes where tf comes only later."""
        if axes is not self._axes:
            self._axes = axes
            self._log("world", axes, static=True)

    def _camera(self, frame: Frame) -> None:
        """The frustum of a camera whose place and calibration are known; once, if it stays so."""
        pose = self._poses.get(frame.sensor)
        if frame.camera is None or pose is None or self._cameras.get(frame.sensor) == frame.camera:
            return
        self._cameras[frame.sensor] = frame.camera
        camera = frame.camera.scaled((frame.height, frame.width))
        self._log(
            f"world/rig/{frame.sensor}",
            self._rr.Transform3D(translation=pose.translation, mat3x3=pose.rotation),
            self._rr.Pinhole(
                image_from_camera=camera.matrix,
                resolution=(camera.width, camera.height),
                camera_xyz=self._rr.ViewCoordinates.RDF,
                image_plane_distance=PLANE_M,
            ),
        )

    def _cloud(self, frames: FrameSet, reference: Frame, answer: Answer | None) -> None:
        depth, pose = frames.frames.get("depth"), self._poses.get("depth")
        if depth is None or pose is None or reference.camera is None:
            return
        camera = reference.camera.scaled((reference.height, reference.width))
        points = cloud(depth, pose, camera)
        if points is None:
            return
        how: dict[str, Any] = {}
        if answer is not None:
            how["class_ids"] = answer.classes[points.rows, points.columns]
        elif reference.sensor == "rgb":
            how["colors"] = reference.data[points.rows, points.columns]
        self._log("world/rig/cloud", self._rr.Points3D(points.positions, radii=0.02, **how))

    def _image(self, picture: Image) -> object:
        return self._rr.EncodedImage(contents=jpeg(picture), media_type="image/jpeg")

    def _about(self, manifest: Manifest | None) -> object:
        lines = ["No model: the drive alone."]
        if manifest is not None:
            lines = [manifest.summary, "", *(f"- {x.id}: {x.name}" for x in manifest.labels)]
        return self._rr.TextDocument("\n".join(lines), media_type="text/markdown")

    def _log(self, path: str, *entities: Any, static: bool = False) -> None:
        parts = [part for part in path.split("/") if part]  # a name may hold what a path may not
        self._stream.log(parts or "/", entities[0], *entities[1:], static=static)


def rerun() -> Any:
    """The library.

    Raises:
        Unim2Error: it is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise Unim2Error(
            "looking at a drive needs a viewer",
            expected="rerun-sdk",
            found=str(error),
            remedy="pip install 'unim2[view]'; or open the output of unim2 segment in Foxglove",
        ) from error
    return rerun
