"""The bag of a synthetic drive, read back with readers that are not ours."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from unim2_core.data.drive_writer import START_NS, schedule
from unim2_core.data.synthetic import DriveConfig, default_rig, render, write_drive
from unim2_core.data.world.mounts import MOUNTS
from unim2_core.data.world.render_process import RenderPool
from unim2_core.errors import BagError, Unim2Error
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.rig import Rig

CONFIG = DriveConfig(seed=4, duration_s=1.2, width=96, height=72, dropout=0.1)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "drive"
    calls = []
    summary = write_drive(path, CONFIG, lambda *done: calls.append(done), workers=1)
    return path, summary, calls


@pytest.fixture(scope="module")
def messages(drive):
    """Topic -> list of (log time, message)."""
    found = defaultdict(list)
    with (drive[0] / "drive.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for _, channel, raw, message in reader.iter_decoded_messages():
            found[channel.topic].append((raw.log_time, message))
    return found


def stamp_of(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def pixels(message) -> np.ndarray:
    kind = {"rgb8": "u1", "mono8": "u1", "mono16": "<u2", "16UC1": "<u2", "32FC1": "<f4"}
    flat = np.frombuffer(message.data, kind[message.encoding])
    shape = (message.height, message.width, *((3,) if message.encoding == "rgb8" else ()))
    return flat.reshape(shape)


def test_topics_and_counts(drive, messages):
    _, summary, calls = drive
    for sensor in MOUNTS:
        assert len(messages[f"/{sensor}/image"]) == summary.images[sensor]
        assert len(messages[f"/{sensor}/camera_info"]) == summary.images[sensor]
        due = 1.2 * 10 * MOUNTS[sensor].rate_share
        assert abs(summary.images[sensor] + summary.lost[sensor] - due) <= 1
    assert sum(summary.lost.values()) > 0
    assert len(messages["/ground_truth/label"]) == summary.images["rgb"]
    assert len(messages["/ground_truth/depth"]) == summary.images["rgb"]
    assert len(messages["/tf_static"]) == 1 and len(messages["/tf"]) == 24
    assert not any(topic.startswith("/ground_truth/thermal") for topic in messages)
    total = sum(summary.images.values())
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_images_are_what_was_rendered(messages):
    for sensor, mount in MOUNTS.items():
        _, message = messages[f"/{sensor}/image"][-1]
        assert message.encoding == mount.encoding
        time_s = (stamp_of(message) - START_NS) * 1e-9
        np.testing.assert_array_equal(pixels(message), render(CONFIG, time_s, sensor).image)


def test_ground_truth_has_the_header_of_the_reference(messages):
    for topic in ("/ground_truth/label", "/ground_truth/depth"):
        for (_, image), (_, truth) in zip(messages["/rgb/image"], messages[topic], strict=True):
            assert truth.header.frame_id == image.header.frame_id == "rgb_optical_frame"
            assert stamp_of(truth) == stamp_of(image)
    _, label = messages["/ground_truth/label"][0]
    _, depth = messages["/ground_truth/depth"][0]
    truth = render(CONFIG, (stamp_of(label) - START_NS) * 1e-9, "rgb")
    np.testing.assert_array_equal(pixels(label), truth.label)
    np.testing.assert_array_equal(pixels(depth), truth.depth_m)


def test_camera_info_belongs_to_its_image(messages):
    for sensor in MOUNTS:
        pairs = zip(messages[f"/{sensor}/image"], messages[f"/{sensor}/camera_info"], strict=True)
        for (_, image), (_, info) in pairs:
            assert (info.width, info.height) == (image.width, image.height)
            assert stamp_of(info) == stamp_of(image)
            assert info.header.frame_id == f"{sensor}_optical_frame"
            np.testing.assert_allclose(np.reshape(info.k, (3, 3)), CONFIG.camera(sensor).matrix)


def test_stamps_rise_and_messages_arrive_later(messages):
    for sensor in MOUNTS:
        stamps = [stamp_of(message) for _, message in messages[f"/{sensor}/image"]]
        logs = [log for log, _ in messages[f"/{sensor}/image"]]
        assert np.all(np.diff(stamps) > 0)
        late = np.subtract(logs, stamps) * 1e-9
        assert late.min() >= 0 and 0.005 < late.mean() < 0.08


def matrix_of(transform) -> np.ndarray:
    x, y, z, w = (getattr(transform.rotation, axis) for axis in "xyzw")
    result = np.eye(4)
    result[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    result[:3, 3] = [getattr(transform.translation, axis) for axis in "xyz"]
    return result


def test_frames_agree_with_the_rig(messages):
    static = {t.child_frame_id: t for t in messages["/tf_static"][0][1].transforms}

    def in_base(frame):
        transform = static[frame]
        here = matrix_of(transform.transform)
        parent = transform.header.frame_id
        return here if parent == "base_link" else in_base(parent) @ here

    rig = default_rig(CONFIG)
    reference = in_base("rgb_optical_frame")
    # REP 103: z of an optical frame looks ahead, x to the right, y down.
    np.testing.assert_allclose(reference[:3, :3] @ [0, 0, 1], [1, 0, 0], atol=0.1)
    np.testing.assert_allclose(reference[:3, :3] @ [1, 0, 0], [0, -1, 0], atol=0.1)
    for sensor, options in rig.sensors.items():
        if sensor == rig.reference:
            assert options.extrinsics is None
            continue
        expected = np.linalg.inv(reference) @ in_base(f"{sensor}_optical_frame")
        np.testing.assert_allclose(expected[:3, 3], options.extrinsics.translation_m, atol=1e-6)
        x, y, z, w = options.extrinsics.rotation_xyzw
        rotation = SimpleNamespace(x=x, y=y, z=z, w=w)
        pose = SimpleNamespace(rotation=rotation, translation=SimpleNamespace(x=0, y=0, z=0))
        np.testing.assert_allclose(expected[:3, :3], matrix_of(pose)[:3, :3], atol=1e-6)


def test_the_robot_drives_along(messages):
    poses = [matrix_of(m.transforms[0].transform) for _, m in messages["/tf"]]
    heads = {(m.transforms[0].header.frame_id, m.transforms[0].child_frame_id)
             for _, m in messages["/tf"]}  # fmt: skip
    assert heads == {("odom", "base_link")}
    step = np.diff([pose[:3, 3] for pose in poses], axis=0)
    speed = np.linalg.norm(step, axis=1) * 20
    assert np.all((speed > 3) & (speed < 9))
    ahead = np.array([pose[:3, 0] for pose in poses[:-1]])
    assert np.all(np.einsum("ni,ni->n", step, ahead) / np.linalg.norm(step, axis=1) > 0.97)


def test_the_bag_does_not_depend_on_the_number_of_workers(drive, tmp_path):
    path, summary, _ = drive
    again = write_drive(tmp_path / "drive", CONFIG, workers=3)
    for name in ("drive.mcap", "metadata.yaml"):
        assert (tmp_path / "drive" / name).read_bytes() == (path / name).read_bytes()
    assert again == dataclasses.replace(summary, path=tmp_path / "drive")


def test_another_seed_makes_another_bag(drive, tmp_path):
    other = dataclasses.replace(CONFIG, seed=5)
    write_drive(tmp_path / "drive", other, workers=1)
    assert (tmp_path / "drive/drive.mcap").read_bytes() != (drive[0] / "drive.mcap").read_bytes()


def test_all_labels_and_few_sensors(tmp_path):
    config = dataclasses.replace(
        CONFIG, duration_s=0.3, sensors=("rgb", "thermal"), ground_truth="all", dropout=0.0
    )
    summary = write_drive(tmp_path / "drive.mcap", config, workers=1)
    assert set(summary.images) == {"rgb", "thermal"}
    with BagReader(tmp_path / "drive.mcap") as reader:
        topics = set(reader.topics)
    assert topics == {
        "/rgb/image", "/rgb/camera_info", "/thermal/image", "/thermal/camera_info", "/tf",
        "/tf_static", "/ground_truth/label", "/ground_truth/depth", "/ground_truth/thermal/label",
    }  # fmt: skip


def test_the_rig_survives_its_file(tmp_path):
    rig = default_rig(CONFIG)
    (tmp_path / "rig.yaml").write_text(rig.dump())
    assert Rig.load(tmp_path / "rig.yaml") == rig


def test_the_drive_can_be_synchronised_and_decoded(messages):
    rig = default_rig(CONFIG)
    intake = Intake(rig)
    sets = []
    arrivals = [(log, topic, m) for topic in intake.topics for log, m in messages[topic]]
    for log, topic, message in sorted(arrivals, key=lambda arrival: arrival[0]):
        sets += intake.add(topic, message, log)
    sets += intake.flush()
    assert len(sets) == len(messages["/rgb/image"])
    frames = [intake.decode(matched) for matched in sets]
    one = max(frames, key=lambda f: len(f.frames)).frames
    assert set(one) == set(MOUNTS)
    assert one["thermal"].unit == "K" and 240 < one["thermal"].data.mean() < 320
    assert one["depth"].unit == "m" and one["depth"].data[one["depth"].valid].min() > 0.4
    assert one["polarization"].data.shape[-1] == 3


def test_exposures_jitter_but_never_overtake():
    config = DriveConfig(seed=1, duration_s=60, jitter_s=0.05, dropout=0.2)
    shots = schedule(config)
    assert [s.log_ns for s in shots] == sorted(s.log_ns for s in shots)
    for sensor, mount in MOUNTS.items():
        stamps = np.array(sorted(s.stamp_ns for s in shots if s.sensor == sensor)) * 1e-9
        period = 0.1 / mount.rate_share
        assert np.diff(stamps).min() > 0.3 * period
        assert np.diff(stamps).std() > 0.01
        assert 0.1 < np.mean([s.lost for s in shots if s.sensor == sensor]) < 0.3
    steady = schedule(dataclasses.replace(config, jitter_s=0.0, dropout=0.0))
    rgb = np.array([s.stamp_ns for s in steady if s.sensor == "rgb"])
    assert len(rgb) == 600 and np.all(np.diff(rgb) == 10**8)
    assert not any(s.lost for s in steady)


def test_a_bag_that_exists_is_not_overwritten(drive):
    with pytest.raises(BagError, match="exists already"):
        write_drive(drive[0], CONFIG, workers=1)


def test_an_interrupted_drive_leaves_nothing_under_its_name(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_drive(tmp_path / "drive", CONFIG, interrupt, workers=2)
    assert not (tmp_path / "drive").exists()


def test_a_rendering_process_that_dies_is_reported():
    with RenderPool(2) as pool:
        for process in pool._processes:
            process.kill()
            process.wait()
        with pytest.raises(Unim2Error, match="ended before its time"):
            list(pool.render([(CONFIG, 0.1, "rgb")]))


def test_single_file(tmp_path: Path):
    config = dataclasses.replace(CONFIG, duration_s=0.1, sensors=("rgb",), dropout=0.0)
    summary = write_drive(tmp_path / "one.mcap", config)
    assert summary.path.is_file() and summary.images == {"rgb": 1}
