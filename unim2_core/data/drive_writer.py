"""Writes a synthetic drive as a bag: exposures with jitter and losses, in order of arrival."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unim2_core.data.world.config import DriveConfig
from unim2_core.data.world.mounts import MOUNTS, OPTICAL, REFERENCE, quaternion, relative_pose
from unim2_core.data.world.render_process import RenderPool
from unim2_core.data.world.rendering import Rendering, world_of
from unim2_core.data.world.scene import WORLD_VERSION
from unim2_core.sensing.bag_messages import (
    Transform,
    camera_info_message,
    image_message,
    transform_message,
)
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.rig import Extrinsics, Rig, Sensor, ThermalDecode

START_NS = 1_735_689_600_000_000_000
"""Stamp of time zero of every drive: 2025-01-01 00:00 UTC."""
POSE_HZ = 20.0
_LATENCY_SPREAD = 0.25


@dataclass(frozen=True)
class DriveSummary:
    """What was written.

    Attributes:
        path: the bag.
        images: sensor -> images in the bag.
        lost: sensor -> images that were dropped on the way.
        start_ns: stamp of time zero, nanoseconds.
        duration_s: length, seconds.
    """

    path: Path
    images: Mapping[str, int]
    lost: Mapping[str, int]
    start_ns: int
    duration_s: float


@dataclass(frozen=True)
class Shot:
    """One exposure of one camera.

    Attributes:
        sensor: name of the camera.
        stamp_ns: time of exposure since the start of the drive, nanoseconds.
        log_ns: time at which the message arrives.
        lost: the message never arrives.
    """

    sensor: str
    stamp_ns: int
    log_ns: int
    lost: bool


def schedule(config: DriveConfig) -> list[Shot]:
    """All exposures of a drive in the order in which their messages arrive."""
    shots = []
    for number, (name, mount) in enumerate(MOUNTS.items()):
        if name not in config.sensors:
            continue
        rng = np.random.default_rng([WORLD_VERSION, config.seed, 71, number])
        period = 1 / (mount.rate_share * config.rate_hz)
        due = np.arange(mount.phase_s, config.duration_s, period)
        # Never so late that the next exposure would come first.
        jitter = np.clip(rng.normal(0, config.jitter_s, len(due)), -0.3 * period, 0.3 * period)
        times = np.maximum(due + jitter, 0)
        spread = np.abs(rng.normal(1, _LATENCY_SPREAD, len(due)))
        lost = rng.random(len(due)) < config.dropout
        for time, late, gone in zip(times, mount.latency_s * spread, lost, strict=True):
            stamp = round(float(time) * 1e9)
            shots.append(Shot(name, stamp, stamp + round(float(late) * 1e9), bool(gone)))
    return sorted(shots, key=lambda shot: (shot.log_ns, shot.sensor))


def write_drive(
    path: Path,
    config: DriveConfig,
    progress: Callable[[int, int], None] | None = None,
    *,
    workers: int | None = None,
) -> DriveSummary:
    """Render a drive and write it as a bag.

    Topics: ``/<sensor>/image`` and ``/<sensor>/camera_info``; ``/ground_truth/label`` (mono8)
    and ``/ground_truth/depth`` (32FC1, metres, infinite in the sky) of the reference camera;
    with ``ground_truth="all"`` also ``/ground_truth/<sensor>/label``; ``/tf`` (odom to
    base_link) and ``/tf_static``.

    Args:
        path: ``*.mcap`` for a single file, anything else for a rosbag2 directory.
        config: the drive.
        progress: called with the number of images that are done and of all.
        workers: processes that render; the bag does not depend on it. None: one a processor.

    Raises:
        BagError: ``path`` exists or cannot be written to.
    """
    shots = schedule(config)
    kept = [shot for shot in shots if not shot.lost]
    tasks = ((config, shot.stamp_ns * 1e-9, shot.sensor) for shot in kept)
    count = min(workers or os.cpu_count() or 1, len(kept))
    with BagWriter(path) as bag, RenderPool(max(count, 1)) as pool:
        _write_poses(bag, config)
        for done, (shot, rendering) in enumerate(zip(kept, pool.render(tasks), strict=True), 1):
            _write_shot(bag, config, shot, rendering)
            if progress:
                progress(done, len(kept))
    lost = Counter(shot.sensor for shot in shots if shot.lost)
    return DriveSummary(
        path,
        dict(Counter(shot.sensor for shot in kept)),
        {name: lost[name] for name in config.sensors},
        START_NS,
        config.duration_s,
    )


def _write_shot(bag: BagWriter, config: DriveConfig, shot: Shot, rendering: Rendering) -> None:
    name, stamp, log = shot.sensor, START_NS + shot.stamp_ns, START_NS + shot.log_ns
    frame = optical_frame(name)
    camera = config.camera(name)
    info = camera_info_message(
        camera.width, camera.height, camera.matrix, np.zeros(5), stamp, frame
    )
    image = image_message(rendering.image, MOUNTS[name].encoding, stamp, frame)
    bag.write(f"/{name}/camera_info", info, log)
    bag.write(f"/{name}/image", image, log)
    label = image_message(rendering.label, "mono8", stamp, frame)
    if name == REFERENCE:
        depth = image_message(rendering.depth_m, "32FC1", stamp, frame)
        bag.write("/ground_truth/label", label, log)
        bag.write("/ground_truth/depth", depth, log)
    elif config.ground_truth == "all":
        bag.write(f"/ground_truth/{name}/label", label, log)


def _write_poses(bag: BagWriter, config: DriveConfig) -> None:
    """The static frames of the cameras, and where the robot is at each time."""
    frames = []
    for name in config.sensors:
        mount = MOUNTS[name]
        frames += [
            Transform("base_link", f"{name}_link", mount.translation_m, quaternion(mount.body)),
            Transform(f"{name}_link", optical_frame(name), (0.0, 0.0, 0.0), quaternion(OPTICAL)),
        ]
    bag.write("/tf_static", transform_message(frames, START_NS), START_NS)
    trajectory = world_of(config).trajectory
    for time in np.arange(0, config.duration_s, 1 / POSE_HZ).tolist():
        pose = trajectory.pose(time)
        x, y, z = pose.position.tolist()
        base = Transform("odom", "base_link", (x, y, z), quaternion(pose.rotation))
        stamp = START_NS + round(time * 1e9)
        bag.write("/tf", transform_message([base], stamp), stamp)


def optical_frame(sensor: str) -> str:
    """Name of a camera's optical frame."""
    return f"{sensor}_optical_frame"


def default_rig(config: DriveConfig) -> Rig:
    """The rig of the drive: topics, decoding, ages and the true extrinsics of its cameras."""
    sensors = {}
    for name in config.sensors:
        mount = MOUNTS[name]
        period = 1 / (mount.rate_share * config.rate_hz)
        rotation, translation = relative_pose(name)
        sensors[name] = Sensor(
            topic=f"/{name}/image",
            required=name == REFERENCE,
            # Every image of a slower camera serves until its next one.
            max_age_s=round((1.25 if mount.rate_share < 1 else 0.75) * period, 4),
            thermal=ThermalDecode(conversion="centikelvin"),
            extrinsics=None
            if name == REFERENCE
            else Extrinsics(
                translation_m=tuple(translation.round(9).tolist()),
                rotation_xyzw=quaternion(rotation),
            ),
        )
    return Rig(
        name="synthetic",
        reference=REFERENCE,
        deadline_s=round(0.5 / config.rate_hz, 4),
        sensors=sensors,
    )
