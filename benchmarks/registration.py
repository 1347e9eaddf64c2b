"""How well the sensors are registered, against the truth of synthetic drives, and how fast.

Agreement: the ground-truth labels of a camera are taken into the reference camera and compared
with the reference's own, on cells that are valid whichever way they are registered. Of a token
grid, the label of a cell is the commonest of its pixels; the other camera's cells are gathered
as tokens are. 100 % is a camera in the reference's place.

    python benchmarks/registration.py --seeds 4
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from unim2_core.data.synthetic import CLASSES, DriveConfig, default_rig, render
from unim2_core.data.world.mounts import MOUNTS
from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.decoding import Decoder
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.poses import Pose
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.registration import Assumption
from unim2_core.sensing.reprojection import DepthProjection
from unim2_core.sensing.resampling import Size
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.warping import GridMap, gather, warp_image, warp_labels

Labels = NDArray[np.uint8]
BUDGET_MS = 4.0
SHORT = 2.0
"""Percent that may be missing to a camera in the reference's place."""
SENSORS = ("thermal", "polarization", "nir")
DIM = 384
TIMES_S = (1.0, 4.0, 7.0)


@dataclass(frozen=True, eq=False)
class Scene:
    """One moment of a drive.

    Attributes:
        frames: what the cameras recorded.
        true_depth: the same, the depth image without noise, limits and holes.
        labels: sensor -> (H, W) true classes.
    """

    frames: FrameSet
    true_depth: FrameSet
    labels: dict[str, Labels]


@dataclass(frozen=True)
class Agreement:
    """Of one sensor's labels with the reference's, shares in [0, 1].

    Attributes:
        everywhere: on cells that every method can fill.
        textured: on those of them whose depth was measured.
        coverage: cells that this method fills, of all cells.
    """

    everywhere: float
    textured: float
    coverage: float


def scene(config: DriveConfig, time_s: float) -> Scene:
    """Let all cameras take an image at the same time."""
    decoder = Decoder(default_rig(config))
    frames: dict[str, Frame] = {}
    labels = {}
    for name in config.sensors:
        image, labels[name], depth_m = render(config, time_s, name)
        message = image_message(image, MOUNTS[name].encoding, 1, name)
        camera = config.camera(name)
        frame = decoder.decode(name, {"image": message}, 1)
        frames[name] = replace(frame, camera=intrinsics(config, name))
        assert depth_m.shape == (camera.height, camera.width)
        if name == "depth":
            exact = replace(frames[name], data=depth_m, valid=np.isfinite(depth_m))
    truth = {**frames, "depth": exact}
    return Scene(FrameSet("rgb", frames), FrameSet("rgb", truth), labels)


def intrinsics(config: DriveConfig, sensor: str) -> Intrinsics:
    """Calibration of a camera of the drive."""
    camera = config.camera(sensor)
    f = camera.focal_px
    return Intrinsics(f, f, camera.cx, camera.cy, camera.width, camera.height)


def ways(rig: Rig) -> dict[str, tuple[Registrar, Callable[[Scene], FrameSet]]]:
    """Name -> how to register and what the registrar sees."""

    def blind(scene: Scene) -> FrameSet:
        return without_depth(scene.frames)

    unknown = {
        name: sensor.model_copy(update={"extrinsics": None})
        for name, sensor in rig.sensors.items()
    }
    ground = Assumption(plane=(0.0, 1.0, 0.0, 1.3))
    return {
        "nothing": (Registrar(rig.model_copy(update={"sensors": unknown})), blind),
        "rotation": (Registrar(rig), blind),
        "10 m": (Registrar(rig, Assumption(range_m=10.0)), blind),
        "ground": (Registrar(rig, ground), blind),
        "depth": (Registrar(rig), lambda scene: scene.frames),
        "depth, ground": (Registrar(rig, ground), lambda scene: scene.frames),
        "true depth": (Registrar(rig), lambda scene: scene.true_depth),
    }


def without_depth(frames: FrameSet) -> FrameSet:
    """The set as if the depth camera had failed."""
    kept = {name: frame for name, frame in frames.frames.items() if name != "depth"}
    return replace(frames, frames=kept)


def commonest(labels: Labels, size: Size) -> NDArray[np.float32]:
    """Share of each class in each cell, (h, w, K)."""
    shares = [
        cv2.resize((labels == number).astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        for number in range(len(CLASSES))
    ]
    return np.stack(shares, axis=-1)


def textured(scene: Scene, rig: Rig, size: Size) -> NDArray[np.bool_]:
    """Cells of the reference that are measured for the larger part, holes not filled."""
    depth, rgb = scene.frames.frames["depth"], scene.frames.frames["rgb"]
    extrinsics = rig.sensors["depth"].extrinsics
    assert depth.camera and rgb.camera and extrinsics
    projection = DepthProjection(depth.camera, Pose.of(extrinsics), rgb.camera)
    buffer = (projection(depth.data, depth.valid) > 0).astype(np.float32)
    # Nearest at image size: a z-buffer that is coarser than the image has no finer truth.
    smaller = size[0] < buffer.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(buffer, size[::-1], interpolation=how) >= 0.5)


def agreements(
    scenes: list[Scene], rig: Rig, sensor: str, size: Size | None
) -> dict[str, Agreement]:
    """Way of registration -> agreement of a sensor's labels.

    Args:
        scenes: moments to average over.
        rig: with the true extrinsics.
        sensor: not the reference.
        size: of the token grid; None: the reference's image, nearest neighbour.
    """
    counts: dict[str, list[tuple[int, int, int, int, int]]] = {}
    registrars = ways(rig)
    for item in scenes:
        reference = item.labels["rgb"]
        other = item.labels[sensor]
        cells = size or (reference.shape[0], reference.shape[1])
        source = size or (other.shape[0], other.shape[1])
        truth = commonest(reference, size).argmax(-1) if size else reference
        found, valid = {}, {}
        for name, (registrar, view) in registrars.items():
            grid_map = registrar(view(item), cells, {sensor: source}).maps[sensor]
            grid_map = grid_map or GridMap.stretched(cells, source)
            if size:
                shares, valid[name] = gather(commonest(other, size), grid_map)
                found[name] = shares.argmax(-1)
            else:
                found[name], valid[name] = warp_labels(other, grid_map), grid_map.valid
        everywhere = np.logical_and.reduce(list(valid.values()))
        measured = everywhere & textured(item, rig, cells)
        for name in registrars:
            right = found[name] == truth
            counts.setdefault(name, []).append(
                (
                    int(right[everywhere].sum()),
                    int(everywhere.sum()),
                    int(right[measured].sum()),
                    int(measured.sum()),
                    int(valid[name].sum()),
                )
            )
    pixels = len(scenes) * truth.size
    result = {}
    for name, rows in counts.items():
        right_all, all_, right_textured, textured_, filled = np.sum(rows, axis=0)
        result[name] = Agreement(right_all / all_, right_textured / textured_, filled / pixels)
    return result


def agreement_tables(config: DriveConfig, seeds: int) -> Iterator[Table]:
    """One table for each size of the grid."""
    scenes = [
        scene(replace(config, seed=seed), time_s) for seed in range(seeds) for time_s in TIMES_S
    ]
    rig = default_rig(config)
    for size in ((30, 40), (60, 80), None):
        grid = f"{size[0]}x{size[1]} tokens" if size else "image, nearest"
        whats = ("all", "textured", "cover")
        columns = [f"{sensor} {what}" for sensor in SENSORS for what in whats]
        table = Table("registered by", *columns, title=f"label agreement, {grid}, %")
        results = [agreements(scenes, rig, sensor, size) for sensor in SENSORS]
        for name in results[0]:
            cells = []
            for result in results:
                found = result[name]
                cells += [found.everywhere, found.textured, found.coverage]
            table.add_row(name, *(f"{100 * cell:.2f}" for cell in cells))
        yield table


def median_ms(function: Callable[[], object], repeats: int = 50) -> float:
    """Median time of a call after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def summary_table(config: DriveConfig, seeds: int, size: Size | None) -> Table:
    """What registration through depth gives, beside a camera in the reference's own place."""
    scenes = [
        scene(replace(config, seed=seed), time_s) for seed in range(seeds) for time_s in TIMES_S
    ]
    rig = default_rig(config)
    grid = f"{size[0]}x{size[1]} tokens" if size else "image, nearest"
    table = Table(
        *("sensor", "without", "with", "with true depth", "short of perfect", f"of {SHORT:g}"),
        title=f"label agreement where depth was measured, {grid}, %",
    )
    for sensor in SENSORS:
        found = agreements(scenes, rig, sensor, size)
        named = ("nothing", "depth", "true depth")
        shares = [100 * found[way].textured for way in named]
        short = 100 - shares[1]
        figures = [f"{figure:.2f}" for figure in (*shares, short)]
        table.add_row(sensor, *figures, "within" if short <= SHORT else "over")
    return table


def speed_table() -> Table:
    """One sensor beside the reference and depth at a time, all cameras 640x480.

    The sensor bears the whole of the depth reprojection.
    """
    columns = ("sensor", "grid", "depth + maps ms", f"gather D={DIM} ms", "together ms")
    image, unit = np.zeros((480, 640, 3), np.uint8), 0.0
    rows = []
    for sensor in SENSORS:
        config = DriveConfig(seed=1, uniform_size=True, sensors=("rgb", "depth", sensor))
        frames, rig = scene(config, 4.0).frames, default_rig(config)
        if not unit:
            full_map = Registrar(rig)(without_depth(frames), (480, 640)).maps[sensor]
            assert full_map
            unit = median_ms(lambda used=full_map: warp_image(image, used))
        for grid in ((30, 40), (60, 80)):
            maps, taken = grid_ms(frames, rig, grid, sensor)
            total = maps + taken
            figures = (maps, taken, total, total / BUDGET_MS, total / unit)
            rows.append((sensor, f"{grid[0]}x{grid[1]}", *(f"{cell:.2f}" for cell in figures)))
    title = f"one core, 640x480; bilinear warp of one rgb image: {unit:.2f} ms"
    table = Table(*columns, f"of {BUDGET_MS:g} ms", "in warps of one image", title=title)
    for row in rows:
        table.add_row(*row)
    return table


def grid_ms(
    frames: FrameSet, rig: Rig, grid: Size, sensor: str = "thermal"
) -> tuple[float, float]:
    """Time to register a set, and to gather the tokens of one modality."""
    registrar = Registrar(rig)
    grid_map = registrar(frames, grid).maps[sensor]
    assert grid_map
    tokens = np.random.default_rng(0).random((*grid, DIM), np.float32)
    out = np.empty_like(tokens)
    return (
        median_ms(lambda: registrar(frames, grid)),
        median_ms(lambda: gather(tokens, grid_map, out=out)),
    )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=4, help="drives to average over")
    parser.add_argument("--condition", choices=("day", "night"), default="day")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    console = Console(width=150)
    console.print(f"load before: {os.getloadavg()[0]:.1f}")
    console.print(speed_table())
    for size in ((30, 40), (60, 80), None):
        config = DriveConfig(condition=arguments.condition)
        console.print(summary_table(config, arguments.seeds, size))
    for table in agreement_tables(DriveConfig(condition=arguments.condition), arguments.seeds):
        console.print(table)


if __name__ == "__main__":
    main()
