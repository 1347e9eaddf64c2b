"""Drives and outputs behind addresses, of a real server that speaks S3."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import object_store
from perilous import contents
from scenes import write_bag
from typer.testing import CliRunner

pytest.importorskip("s3fs", reason="not installed: pip install 'unim2[fleet]'")
pytest.importorskip("moto", reason="not installed: pip install 'unim2[dev]'")
import s3fs

from unim2_core.cli.main import app
from unim2_core.data.addresses import answered
from unim2_core.errors import DataError
from unim2_core.fleet.drives import list_drives
from unim2_core.model.bundle import Bundle

pytestmark = pytest.mark.timeout(120)
OPTIONS = ["--address", "none"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A bucket ``robots`` with three drives, one of them no bag."""
    folder = tmp_path_factory.mktemp("s3")
    with object_store(folder) as system:
        write_bag(folder / "drives" / "d0", 3)
        write_bag(folder / "drives" / "d1.mcap", 3, first=20)
        system.put(f"{folder}/drives/", "robots/drives/", recursive=True)
        system.pipe_file("robots/drives/bad.mcap", b"not a bag")
        system.local = folder / "drives"
        yield system


def test_drives_of_a_bucket_are_found(store: Any) -> None:
    found = list_drives(["s3://robots/drives/*"])
    assert [(drive.address, drive.name) for drive in found] == [
        ("s3://robots/drives/bad.mcap", "bad"),
        ("s3://robots/drives/d0", "d0"),
        ("s3://robots/drives/d1.mcap", "d1"),
    ]
    store.pipe_file("robots/list.txt", b"drives/d0\ns3://robots/drives/d1.mcap\n")
    assert list_drives(["s3://robots/list.txt"]) == found[1:]


def test_a_bucket_is_segmented_into_a_bucket(store: Any, model_path: Path, tmp_path: Path) -> None:
    asked = ["fleet", "segment", "--drives", "s3://robots/drives/*", "--model", str(model_path)]
    asked += ["--out", str(tmp_path / "out"), "--to", "s3://robots/segmented", *OPTIONS]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 1 and "bad is quarantined" in done.output, done.output
    here = ["fleet", "segment", "--drives", f"{store.local}/*", "--model", str(model_path)]
    assert (
        CliRunner().invoke(app, [*here, "--out", str(tmp_path / "here"), *OPTIONS]).exit_code == 0
    )
    for name, content in contents(tmp_path / "here" / "drives").items():
        assert store.cat_file(f"robots/segmented/drives/{name}") == content
    assert not (tmp_path / "out" / "drives").exists()
    again = CliRunner().invoke(app, asked)
    assert "3 drives, 0 of them to be done" in again.output


def test_features_of_a_bucket_are_those_of_its_copy(store: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="making features needs torch: pip install 'unim2[train]'")
    found = []
    for name, drives in (("there", "s3://robots/drives/d*"), ("here", f"{store.local}/*")):
        asked = ["fleet", "features", "--drives", drives, "--out", str(tmp_path / name), *OPTIONS]
        done = CliRunner().invoke(app, [*asked, "--backbone", "texture", "--frames", "2"])
        assert done.exit_code == 0, done.output
        found.append(contents(tmp_path / name / "drives"))
    assert found[0] == found[1] and len({path.split("/")[0] for path in found[0]}) == 2


def test_a_training_reads_the_features_of_a_bucket(store: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="making features needs torch: pip install 'unim2[train]'")
    same = ["--backbone", "texture", "--frames", "2"]
    fleet = ["fleet", "features", "--drives", "s3://robots/drives/d*", *same, *OPTIONS]
    address, out, report = "s3://robots/features", tmp_path / "m.unim2", tmp_path / "report.json"
    done = CliRunner().invoke(app, [*fleet, "--out", str(tmp_path / "fleet"), "--to", address])
    assert done.exit_code == 0, done.output
    train = ["train", "--bag", f"{store.local}/d0", *same, "--clusters", "3", "--steps", "2"]
    train += ["--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run")]
    asked = [*train, "--features", address, "--json", str(report), "--out", str(out)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "d0 is given with --bag: its features are taken from there" in said
    assert "features of 1 drive more, 2 pictures, are read where they lie" in said
    found = json.loads(report.read_text())
    assert found["pictures"] == 2 and found["batch"] == 4
    assert (found["fleet"]["drives"], found["fleet"]["pictures"]) == (1, 2)
    assert Bundle(out).manifest.training["fleet"] == found["fleet"]
    # The run belongs to these features: with others it does not go on.
    done = CliRunner().invoke(app, [*train, "--out", str(tmp_path / "alone.unim2")])
    assert done.exit_code == 1 and "fleet" in done.output, done.output
    for words in (["--method", "kmeans"], ["--data", "nyu"]):
        asked = ["train", *(train[1:] if words[0] == "--method" else []), *words]
        asked += ["--features", address, "--out", str(tmp_path / "no.unim2")]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 2 and "--features" in done.output, done.output


def test_refusals_and_silence_are_told_apart(
    store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="there are no drives"):
        list_drives(["s3://robots/elsewhere/*"])
    with pytest.raises(DataError, match="does not answer"):
        answered("s3://robots", lambda: time.sleep(5), limit_s=0.1)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # takes calls, says nothing
        monkeypatch.context() as impatient,
    ):
        impatient.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        impatient.setattr("unim2_core.data.addresses.ANSWER_S", 1.0)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(DataError, match="AWS_ACCESS_KEY_ID"):
            list_drives(["s3://robots/drives/*"])
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(DataError, match="NoCredentialsError"):
        list_drives(["s3://robots/drives/*"])
    s3fs.S3FileSystem.clear_instance_cache()
