"""A real server that speaks S3, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from perilous import contents
from scenes import write_bag
from typer.testing import CliRunner

pytest.importorskip("s3fs", reason="not installed: pip install 'unim2[fleet]'")
pytest.importorskip("moto", reason="not installed: pip install 'unim2[dev]'")
import s3fs

from unim2_core.cli.main import app
from unim2_core.errors import DataError
from unim2_core.fleet.addresses import answered
from unim2_core.fleet.drives import list_drives

pytestmark = pytest.mark.timeout(120)
OPTIONS = ["--address", "none"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A bucket ``robots`` with three drives, one of them no bag."""
    folder = tmp_path_factory.mktemp("s3")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
        )
        try:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "testing")
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            _wait_for(port, server)
            system = s3fs.S3FileSystem(skip_instance_cache=True)
            system.mkdir("robots")
            write_bag(folder / "drives" / "d0", 3)
            write_bag(folder / "drives" / "d1.mcap", 3, first=20)
            system.put(f"{folder}/drives/", "robots/drives/", recursive=True)
            system.pipe_file("robots/drives/bad.mcap", b"not a bag")
            system.local = folder / "drives"
            yield system
        finally:
            server.kill()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not begin")


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


def test_refusals_and_silence_are_told_apart(
    store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="there are no drives"):
        list_drives(["s3://robots/elsewhere/*"])
    with pytest.raises(DataError, match="does not answer"):
        answered("s3://robots", lambda: time.sleep(5), limit_s=0.1)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls, says nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("unim2_core.fleet.addresses.ANSWER_S", 1.0)
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
    assert time.monotonic() - began < 30
