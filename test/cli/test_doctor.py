"""``unim2 doctor``: a line says what there is and what mends it; no check stops another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from scenes import write_bag
from typer.testing import CliRunner

from unim2_core.cli import doctor, doctor_machine, doctor_ros
from unim2_core.cli.doctor_bag import bag_checks, rig_checks
from unim2_core.cli.doctor_findings import Finding, ok, run_checks
from unim2_core.cli.doctor_machine import machine_checks
from unim2_core.cli.doctor_model import model_checks
from unim2_core.cli.main import app
from unim2_core.errors import BagError
from unim2_core.inference.backends import LIBRARIES
from unim2_core.sensing.rig import Rig

RIG = Rig.default(("rgb", "thermal"))
GIB = 2**30


def named(found: list[Finding], subject: str) -> list[Finding]:
    return [finding for finding in found if finding.subject == subject]


def test_what_a_check_raises_is_its_line_and_the_others_go_on():
    def broken() -> Iterator[Finding]:
        yield ok("first", "half done")
        raise KeyError("a bug")

    def refused() -> Iterator[Finding]:
        raise BagError("no such bag", found="a stone", remedy="record one")
        yield

    found = run_checks({"first": broken, "bag": refused, "last": lambda: [ok("last", "fine")]})
    assert [finding.state for finding in found] == ["ok", "error", "error", "ok"]
    assert "KeyError" in found[1].found
    assert found[2] == Finding("bag", "error", "no such bag; found a stone", "record one")


@pytest.mark.parametrize(
    ("free", "state"), [(100 * GIB, "ok"), (1 * GIB, "warning"), (GIB // 8, "error")]
)
def test_a_full_disk_is_seen(monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    found = run_checks({"disk": machine_checks()["disk"]})
    assert {finding.state for finding in found} == {state}
    assert all(bool(finding.remedy) == (state != "ok") for finding in found)


def test_no_backend_is_an_error(monkeypatch):
    monkeypatch.setattr(doctor_machine, "LIBRARIES", {})
    (only,) = run_checks({"backends": machine_checks()["backends"]})
    assert (only.state, only.remedy) == ("error", "pip install onnxruntime")


def test_absent_weights_name_the_three_ways(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIM2_WEIGHTS", str(tmp_path))
    (only,) = run_checks({"weights": machine_checks()["weights"]})
    assert only.state == "warning" and "three ways" in only.remedy
    (tmp_path / "dinov3_vits16.pth").touch()
    (only,) = run_checks({"weights": machine_checks()["weights"]})
    assert only.state == "ok" and "dinov3_vits16" in only.found


def test_a_gpu_is_asked_of_the_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_machine, "JETSON", tmp_path / "nv_tegra_release")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA T4, 550.1, 16 GiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (only,) = run_checks({"gpu": machine_checks()["gpu"]})
    assert only == ok("gpu", "NVIDIA T4, 550.1, 16 GiB")
    tool.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    (only,) = run_checks({"gpu": machine_checks()["gpu"]})
    assert only.state == "warning" and "no devices" in only.found
    (tmp_path / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.0\nmore\n")
    (only,) = run_checks({"gpu": machine_checks()["gpu"]})
    assert only == ok("gpu", "R36 (release), REVISION: 4.0")


def test_a_tensorrt_that_miscompiles_is_named(monkeypatch):
    versions = {"tensorrt": "10.3.0"}
    monkeypatch.setattr(doctor_machine, "installed", versions.get)
    (only,) = run_checks({"tensorrt": machine_checks()["tensorrt"]})
    assert only.state == "warning" and "miscompile" in only.found


def test_without_ros_bags_still_work(monkeypatch):
    monkeypatch.setattr(doctor_ros, "find_spec", lambda _: None)
    (only,) = run_checks(doctor_ros.ros_checks({}))
    assert only.state == "warning" and "bags can be segmented" in only.found
    (only,) = run_checks(doctor_ros.ros_checks({"ROS_DISTRO": "jazzy"}))
    assert only.state == "error" and "system-site-packages" in only.remedy


SMALL = "<profiles><segment_size>1024</segment_size></profiles>"
NONE = "<profiles></profiles>"


@pytest.mark.parametrize(
    ("variables", "content", "state", "said"),
    [
        ({}, None, "warning", "loses images"),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, None, "ok", "LARGE_DATA"),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "FILE"}, None, "error", "is no file"),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "FILE"}, "<a", "error", "cannot be read"),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "FILE"}, NONE, "warning", "sets no segment_size"),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "FILE"}, SMALL, "warning", "holds no large image"),
        (
            {"FASTDDS_DEFAULT_PROFILES_FILE": "FILE", "ROS_DISTRO": "jazzy"},
            SMALL,
            "error",
            "not read before Kilted",
        ),
    ],
)
def test_the_dds_profile_is_read(monkeypatch, tmp_path, variables, content, state, said):
    monkeypatch.setattr(doctor_ros, "find_spec", lambda _: object())
    file = tmp_path / "profile.xml"
    if content is not None:
        file.write_text(content)
    given = {name: str(file) if value == "FILE" else value for name, value in variables.items()}
    found = run_checks({"dds profile": doctor_ros.ros_checks(given)["dds profile"]})
    assert found[-1].state == state and said in found[-1].found


def test_our_own_profile_is_fine(monkeypatch):
    monkeypatch.setattr(doctor_ros, "find_spec", lambda _: object())
    variables = {"FASTDDS_DEFAULT_PROFILES_FILE": str(doctor_ros.share(doctor_ros.PROFILE))}
    (only,) = run_checks({"dds profile": doctor_ros.ros_checks(variables)["dds profile"]})
    assert only.state == "ok" and "64 MiB" in only.found


@pytest.mark.parametrize(("size", "state"), [("212992\n", "warning"), ("67108864\n", "ok")])
def test_a_small_socket_buffer_is_seen(monkeypatch, tmp_path, size, state):
    monkeypatch.setattr(doctor_ros, "find_spec", lambda _: object())
    monkeypatch.setattr(doctor_ros, "RMEM", tmp_path / "rmem_max")
    (tmp_path / "rmem_max").write_text(size)
    (only,) = run_checks({"rmem": doctor_ros.ros_checks({})["rmem"]})
    assert only.state == state and ("sysctl" in only.remedy) == (state == "warning")


@pytest.mark.ros
def test_the_real_rclpy_is_asked():
    pytest.importorskip("rclpy")
    found = run_checks({"ros": doctor_ros.ros_checks({})["ros"]})
    assert [finding.subject for finding in found] == ["ros", "ros", "rmw"]
    assert "rmw_" in found[-1].found and not [f for f in found if f.state == "error"]


def test_streams_that_meet_are_fine_and_what_is_not_known_is_said(tmp_path):
    write_bag(tmp_path / "drive", 10)
    found = run_checks(bag_checks(tmp_path / "drive", RIG))
    (sets, thermal) = named(found, "sync")
    assert sets.found == "10 sets of rgb"
    assert thermal.state == "ok" and "in 100 % of the sets" in thermal.found
    assert [f.state for f in named(found, "tf")] == ["warning"]
    assert "no calibration" in " ".join(f.found for f in named(found, "topics"))
    assert not [finding for finding in found if finding.state == "error"]


def test_a_stream_that_is_too_old_gets_an_age_that_works(tmp_path):
    bag = tmp_path / "drive"
    write_bag(bag, 20, thermal_delay_ns=45_000_000)
    content = RIG.model_dump()
    content["sensors"]["thermal"]["max_age_s"] = 0.01
    found = run_checks(bag_checks(bag, Rig.parse(content)))
    thermal = named(found, "sync")[-1]
    assert thermal.state == "warning" and "too old" in thermal.found
    assert thermal.remedy.startswith("max_age_s: ")
    content["sensors"]["thermal"]["max_age_s"] = float(thermal.remedy.split()[1])
    assert named(run_checks(bag_checks(bag, Rig.parse(content))), "sync")[-1].state == "ok"


def test_a_missing_reference_and_a_damaged_bag_are_errors(tmp_path):
    write_bag(tmp_path / "drive", 10)
    found = run_checks(bag_checks(tmp_path / "drive", Rig.default(("rgb",), root="/other/")))
    (topics,) = named(found, "topics")
    assert topics.state == "error" and "no images of the sensor rgb" in topics.found
    (file,) = (tmp_path / "drive").glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (bag, *_) = named(run_checks(bag_checks(tmp_path / "drive", RIG)), "bag")
    assert bag.state == "error"


def test_a_rig_whose_rotation_is_none_is_an_error():
    content = RIG.model_dump()
    content["sensors"]["thermal"]["extrinsics"] = {
        "translation_m": (0, 0, 0),
        "rotation_xyzw": (1, 1, 1, 1),
    }
    found = run_checks(rig_checks(Rig.parse(content)))
    assert found[-1].state == "error" and "unit quaternion" in found[-1].found


def test_a_model_is_held_to_the_gate(model_path, tmp_path):
    found = run_checks(model_checks(model_path, RIG))
    assert len(named(found, "gate")) == sum(
        len(library.precisions)
        for library in LIBRARIES.values()
        if library.installed and library.device_there()
    )
    assert "passes" in named(found, "gate")[0].found
    assert named(found, "model and rig")[0].state == "ok"
    (bundle,) = named(run_checks(model_checks(tmp_path / "none.unim2", None)), "model")
    assert bundle.state == "error" and "unim2 train" in bundle.remedy


def test_the_exit_status_follows_the_errors(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "machine_checks", lambda: {"a": lambda: [ok("a", "[b]fine[/b]")]})
    monkeypatch.setattr(doctor, "ros_checks", dict)
    runner = CliRunner()
    done = runner.invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert "[b]fine[/b]" in done.output and "1 ok, 0 warnings, 0 errors" in done.output
    file = tmp_path / "doctor.json"
    done = runner.invoke(app, ["doctor", "--bag", str(tmp_path / "none"), "--json", str(file)])
    assert done.exit_code == 1 and "Traceback" not in done.output
    content = json.loads(file.read_text())
    assert content["counts"]["error"] >= 1
    assert all(f["remedy"] for f in content["findings"] if f["state"] == "error")
    done = runner.invoke(app, ["doctor", "--rig", str(tmp_path / "none.yaml")])
    assert done.exit_code == 1 and "unim2 rig BAG" in done.output
