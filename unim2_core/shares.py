"""Where the files are that come with the package: rigs, the DDS profile, launch files."""

from __future__ import annotations

from pathlib import Path

from unim2_core.errors import Unim2Error

_ROS_PACKAGE = "unim2_ros"


def share(name: str) -> Path:
    """Find a file or folder below ``config/`` or ``launch/``.

    The same call works in a source checkout (and an editable install), in an installed wheel and
    in a colcon install, with and without ``--symlink-install``.

    Args:
        name: path relative to the project, with forward slashes: ``config/rigs/example.yaml``.

    Raises:
        Unim2Error: there is no such file or folder.
    """
    package = Path(__file__).absolute().parent
    places = [package / "share"]  # wheel
    if (package.parent / "package.xml").is_file():
        places.append(package.parent)  # checkout
    places += [prefix / "share" / _ROS_PACKAGE for prefix in package.parents]  # colcon
    for place in places:
        if (place / name).exists():
            return place / name
    raise Unim2Error(
        f"{name} did not come with this installation of unim2",
        expected="a path below config/ or launch/",
        found=f"no such path in {places[0]}, a source checkout, or a colcon install",
        remedy="check the spelling; if it is right, install unim2 again",
    )
