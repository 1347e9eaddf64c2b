"""``unim2 view``: a recording that opens, read back by rerun's own tools."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore
from scenes import HEIGHT, PERIOD_NS, START_NS, WIDTH, rgb_image, thermal_image, write_bag
from typer.testing import CliRunner

from unim2_core.cli import view
from unim2_core.cli.main import app
from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bag_writer import BagWriter

pytest.importorskip("rerun", reason="pip install 'unim2[view]'")
TYPES = get_typestore(Stores.ROS2_JAZZY).types
FRAMES = 4


def viewed(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["view", *map(str, arguments)])
    return done.exit_code, done.output


def tool(*arguments: object) -> str:
    """What rerun's command says of a recording."""
    command = [sys.executable, "-m", "rerun", "rrd", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def rows(recording: Path) -> Counter[str]:
    """Entity -> at how many times something was logged there."""
    from rerun.chunk import RrdReader

    found: Counter[str] = Counter()
    for chunk in RrdReader(recording).stream():
        if not chunk.is_static:
            found[chunk.entity_path] += chunk.num_rows
    return found


def translations(recording: Path, entity: str) -> list[list[float]]:
    """Of the transforms of an entity, in the order of time."""
    from rerun.chunk import RrdReader

    found = []
    for chunk in RrdReader(recording).stream():
        if chunk.entity_path == entity:
            batch = chunk.to_record_batch()
            (name,) = [key for key in batch.schema.names if key.endswith(":translation")]
            columns = (batch.column(key).to_pylist() for key in ("frame", name))
            found += zip(*columns, strict=True)
    return [value[0] for _, value in sorted(found)]


def _camera_info(stamp_ns: int, frame: str, size: tuple[int, int]) -> object:
    info, header = TYPES["sensor_msgs/msg/CameraInfo"], TYPES["std_msgs/msg/Header"]
    roi = TYPES["sensor_msgs/msg/RegionOfInterest"]
    time = TYPES["builtin_interfaces/msg/Time"]
    stamp = time(stamp_ns // 10**9, stamp_ns % 10**9)
    height, width = size
    k = np.array([width, 0, width / 2, 0, width, height / 2, 0, 0, 1], np.float64)
    return info(
        header=header(stamp, frame),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=roi(0, 0, 0, 0, False),
    )


def _transform(child: str, parent: str, x: float) -> object:
    vector, turn = TYPES["geometry_msgs/msg/Vector3"], TYPES["geometry_msgs/msg/Quaternion"]
    stamped, header = TYPES["geometry_msgs/msg/TransformStamped"], TYPES["std_msgs/msg/Header"]
    moved = TYPES["geometry_msgs/msg/Transform"](vector(x, 0.0, 1.0), turn(0.0, 0.0, 0.0, 1.0))
    stamp = TYPES["builtin_interfaces/msg/Time"](0, 0)
    return stamped(header=header(stamp, parent), child_frame_id=child, transform=moved)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A robot with tf, a calibrated colour and depth camera, and a thermal one."""
    path = tmp_path_factory.mktemp("robot") / "drive"
    tf = TYPES["tf2_msgs/msg/TFMessage"]
    size = {"rgb": (HEIGHT, WIDTH), "depth": (HEIGHT, WIDTH)}
    with BagWriter(path) as writer:
        writer.write("/tf_static", tf([_transform("rgb_optical", "base_link", 0.1)]), START_NS)
        for index in range(FRAMES):
            stamp = START_NS + index * PERIOD_NS
            writer.write("/tf", tf([_transform("base_link", "odom", 0.5 * index)]), stamp)
            depth = np.full(size["depth"], 3000, np.uint16)
            for sensor, pixels, encoding in (
                ("rgb", rgb_image(index), "rgb8"),
                ("depth", depth, "16UC1"),
                ("thermal", thermal_image(index), "mono16"),
            ):
                if sensor in size:
                    info = _camera_info(stamp, f"{sensor}_optical", size[sensor])
                    writer.write(f"/{sensor}/camera_info", info, stamp)
                message = image_message(pixels, encoding, stamp, f"{sensor}_optical")
                writer.write(f"/{sensor}/image", message, stamp + 1)
    return path


RIG = """
sensors:
  rgb: {topic: /rgb/image}
  depth:
    topic: /depth/image
    extrinsics: {translation_m: [0.05, 0, 0], rotation_xyzw: [0, 0, 0, 1]}
  thermal: {topic: /thermal/image}
"""


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    file = tmp_path / "rig.yaml"
    file.write_text(RIG)
    return file


def test_everything_is_in_the_recording(drive, rig, model_path, tmp_path):
    out = tmp_path / "drive.rrd"
    status, output = viewed(drive, "--rig", rig, "--model", model_path, "--save", out)
    assert status == 0, output
    assert f"{FRAMES} sets" in output
    assert "verified without error" in tool("verify", out)
    found = rows(out)
    each = [
        *("/world/rig/rgb/image", "/world/rig/rgb/classes", "/world/rig/cloud", "/world/rig"),
        *("/mask", "/confidence", "/modalities/rgb", "/modalities/depth"),
        *("/registered/thermal", "/skew/thermal", "/skew/depth", "/latency/total", "/shares/0"),
        *("/world/tf/base_link", "/world/tf/rgb_optical"),
    ]
    for path in each:
        assert found[path] == FRAMES, (path, found)
    # Cameras stay where they are, so their frusta come once; so does the version.
    for path in ("/world/rig/rgb", "/world/rig/depth", "/version"):
        assert found[path] == 1, (path, found)
    # The robot drives half a metre a set; its camera is a tenth of a metre ahead of it.
    moved = translations(out, "/world/rig")
    np.testing.assert_allclose([x for x, _, _ in moved], [0.1, 0.6, 1.1, 1.6], atol=1e-6)
    from rerun.chunk import RrdReader

    assert len(RrdReader(out).blueprints()) == 1, "it opens arranged"


def test_without_a_model_the_sensors_are_shown(drive, rig, tmp_path):
    out = tmp_path / "drive.rrd"
    status, output = viewed(drive, "--rig", rig, "--frames", 2, "--save", out)
    assert status == 0, output
    assert "2 sets" in output
    found = rows(out)
    assert found["/modalities/depth"] == found["/world/rig/cloud"] == 2
    assert "/mask" not in found and "/latency/total" not in found


def test_a_drive_without_calibration_or_tf_is_shown_too(tmp_path, model_path):
    write_bag(tmp_path / "drive", 3)
    out = tmp_path / "drive.rrd"
    status, output = viewed(tmp_path / "drive", "--model", model_path, "--save", out)
    assert status == 0, output
    found = rows(out)
    assert found["/world/rig/rgb/classes"] == 3
    assert "/world/rig/cloud" not in found and "/world/rig" not in found


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["absent", "--save", "a.rrd"], 1, "absent"),
        (["DRIVE", "--save", "a.mcap"], 2, "ending in .rrd"),
        (["DRIVE", "--save", "a.rrd", "--web"], 2, "found both"),
        (["DRIVE", "--model", "absent.unim2", "--save", "a.rrd"], 1, "cannot open the model"),
        (["DRIVE", "--topic", "rgb=/none", "--save", "a.rrd"], 1, "no images of the sensor rgb"),
        (["DRIVE", "--save", "/proc/none/a.rrd"], 1, "cannot write"),
    ],
)
def test_bad_usage_is_explained(drive, tmp_path, monkeypatch, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    given = [drive if argument == "DRIVE" else argument for argument in arguments]
    found, output = viewed(*given)
    assert found == status, output
    assert said in output
    assert not list(tmp_path.iterdir())


def test_without_the_library_the_way_to_it_is_named(drive, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    status, output = viewed(drive, "--save", "a.rrd")
    assert status == 1
    assert "unim2[view]" in output


@pytest.mark.parametrize("web", [True, False])
def test_the_viewer_listens_to_this_machine_alone(drive, rig, monkeypatch, web):
    started = []
    real = subprocess.run

    def run(command, **options):
        if "--bind" not in command:
            return real(command, **options)
        assert "verified without error" in tool("verify", command[3])
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(view.subprocess, "run", run)
    status, output = viewed(drive, "--rig", rig, "--frames", 1, *(["--web"] if web else []))
    assert status == 0, output
    (command,) = started
    assert command[command.index("--bind") + 1] == "127.0.0.1"
    assert ("--web-viewer" in command) == web
    assert not Path(command[3]).exists()
