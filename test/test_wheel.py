"""What a user gets who never sees the checkout: a wheel, or a colcon install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT, needs_checkout

pytestmark = needs_checkout
PROFILE = "config/dds/fastdds_shm.xml"
FIND_PROFILE = f"from unim2_core.shares import share; print(share({PROFILE!r}))"


def python(code: str, path: Path, cwd: Path) -> str:
    """Run code with one folder of packages, from a folder outside the checkout."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by way of the sdist, so that a file which MANIFEST.in forgets is missed."""
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "unim2"
    keep_out = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "out")
    shutil.copytree(ROOT, source, ignore=keep_out)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("unim2-*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_the_packages_and_what_share_finds(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {"config": "unim2_core/share/config", "launch": "unim2_core/share/launch"}
    for folder, place in folders.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        expected = {
            f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
            for path in files
            if "__pycache__" not in path.parts
        }
        assert expected
        assert expected <= names
    for package in ("unim2_core", "unim2_ros"):
        for kind in ("*.py", "*.j2", "*.css", "page.*"):
            expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / package).rglob(kind)}
            assert expected <= names
    assert not [name for name in names if name.startswith(("test/", "unim2_ros/msg/"))]


@pytest.mark.slow
def test_installed_wheel_works_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True)
    found = Path(python(FIND_PROFILE, target, tmp_path))
    assert found == target / "unim2_core" / "share" / PROFILE
    assert found.read_bytes() == (ROOT / PROFILE).read_bytes()
    code = (
        "import unim2_core.cli.main as core, unim2_ros; print(core.__file__, unim2_ros.__file__)"
    )
    assert all(
        Path(file).is_relative_to(target) for file in python(code, target, tmp_path).split()
    )


@pytest.mark.parametrize("merged", [False, True], ids=["isolated", "merged"])
def test_share_finds_files_of_a_colcon_install(tmp_path, merged):
    prefix = tmp_path / "install" / ("" if merged else "unim2_ros")
    site = prefix / "lib" / "python3" / "site-packages"
    for module in ("__init__.py", "errors.py", "shares.py"):
        (site / "unim2_core").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "unim2_core" / module, site / "unim2_core" / module)
    profile = prefix / "share" / "unim2_ros" / PROFILE
    profile.parent.mkdir(parents=True)
    profile.write_text("<dds/>", encoding="utf-8")
    assert python(FIND_PROFILE, site, tmp_path) == str(profile)
