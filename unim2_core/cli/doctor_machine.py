"""What ``unim2 doctor`` looks at on the machine: Python, libraries, GPU, weights, disk, cores."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from unim2_core import __version__
from unim2_core.cli.doctor_findings import Check, Finding, error, ok, warning
from unim2_core.cli.environment import cores, installed, memory_gib
from unim2_core.cli.learning_data import default_cache
from unim2_core.errors import ModelError
from unim2_core.inference.backends import LIBRARIES
from unim2_core.inference.fastest import processor
from unim2_core.model.weights import HUB, cache_folder, resolve_weights

OLDEST, NEWEST = (3, 10), (3, 13)
NEEDED = {
    "cv2": "opencv-python-headless",
    "onnxruntime": "onnxruntime",
    "rosbags": "rosbags",
    "mcap": "mcap",
    "zstandard": "zstandard",
    "safetensors": "safetensors",
}
LEARNING = ("torch", "onnx", "onnxscript", "scipy", "lightning_fabric")
TENSORRT = ("tensorrt", "tensorrt-rtx")
JETSON = Path("/etc/nv_tegra_release")
MISCOMPILING = ("10.3", "10.4")
LITTLE_GIB, NOTHING_GIB = 5.0, 0.5
ASK_S = 10.0
"""Longest wait for a tool of the system."""


def machine_checks() -> dict[str, Check]:
    """Checks that need no file of the user's."""
    return {
        "python": _python,
        "libraries": _libraries,
        "learning": _learning,
        "backends": _backends,
        "gpu": _gpu,
        "tensorrt": _tensorrt,
        "weights": _weights,
        "cores": _cores,
        "disk": _disk,
    }


def _python() -> Iterator[Finding]:
    here = sys.version_info[:2]
    text = f"{platform.python_version()} at {sys.executable}; unim2 {__version__}"
    if here < OLDEST:
        yield error("python", text, "use Python 3.10 or later: python3.11 -m venv .venv")
    elif here > NEWEST:
        yield warning("python", f"{text}; newer than what was tried", "use Python 3.10 to 3.13")
    else:
        yield ok("python", text)


def _libraries() -> Iterator[Finding]:
    absent = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if absent:
        yield error(
            "libraries", f"missing: {', '.join(absent)}", f"pip install {' '.join(absent)}"
        )
    else:
        names = ("numpy", "opencv-python-headless", "rosbags")
        known = [f"{name} {version}" for name in names if (version := installed(name))]
        yield ok("libraries", ", ".join(known))
    twins = [name for name in ("opencv-python", "opencv-contrib-python") if installed(name)]
    if twins and installed("opencv-python-headless"):
        remedy = (
            f"pip uninstall -y {' '.join(twins)} && "
            "pip install --force-reinstall --no-deps opencv-python-headless"
        )
        yield warning("libraries", f"OpenCV is installed twice, also as {twins[0]}", remedy)
    if installed("ros2-numpy"):
        found = "ros2-numpy is installed, which asks for an old NumPy"
        yield warning("libraries", found, "pip uninstall -y ros2-numpy")


def _learning() -> Iterator[Finding]:
    absent = [name for name in ("torch", "onnx", "onnxscript", "scipy") if find_spec(name) is None]
    if absent:
        found = (
            f"models cannot be made here: no {', '.join(absent)}; segmenting needs none of them"
        )
        yield warning("learning", found, "pip install 'unim2[train]', or train elsewhere")
    else:
        yield ok("learning", f"torch {installed('torch')}")


def _backends() -> Iterator[Finding]:
    there = {name: library for name, library in LIBRARIES.items() if library.installed}
    if not there:
        yield error("backends", "none is installed", "pip install onnxruntime")
    for name, library in LIBRARIES.items():
        if not library.device_there():
            yield ok("backends", f"{name}: there is no {library.devices[0].upper()} device for it")
        elif name in there:
            version = installed(library.module) or "of unknown version"
            precisions = ", ".join(library.precisions)
            yield ok("backends", f"{name} {version}: {precisions}; --model holds it to the gate")
        else:
            found = f"{name} is not installed; it may be faster here"
            yield warning("backends", found, f"pip install {library.module}, then unim2 bench")


def _gpu() -> Iterator[Finding]:
    if JETSON.is_file():
        yield ok("gpu", JETSON.read_text(errors="replace").splitlines()[0].strip("# "))
        return
    tool = shutil.which("nvidia-smi")
    if tool is None:
        if Path("/proc/driver/nvidia/version").exists():
            yield warning("gpu", "a driver, but no nvidia-smi", "install the driver's utilities")
        else:
            yield ok("gpu", "no NVIDIA driver: everything runs on the CPU")
        return
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=ASK_S, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        found = f"nvidia-smi fails: {said[0] if said else 'it says nothing'}"
        yield warning("gpu", found, "reload or reinstall the driver; then: nvidia-smi")
        return
    for line in done.stdout.strip().splitlines():
        yield ok("gpu", line.strip())


def _tensorrt() -> Iterator[Finding]:
    # Not imported: without a CUDA device its runtime ends the process.
    there = [f"{name} {version}" for name in TENSORRT if (version := installed(name))]
    if not there and find_spec("tensorrt") is not None:
        there = ["tensorrt of unknown version"]
    if not there:
        yield ok("tensorrt", "not here; it comes with JetPack or a CUDA image")
    for text in there:
        if text.startswith(tuple(f"tensorrt {version}" for version in MISCOMPILING)):
            remedy = "unim2 bench MODEL shows if the gate refuses it; TensorRT 10.5 or later"
            yield warning("tensorrt", f"{text} is known to miscompile DINOv3", remedy)
        else:
            yield ok("tensorrt", text)


def _weights() -> Iterator[Finding]:
    found = []
    for name in HUB:
        try:
            found.append(f"{name} at {resolve_weights(name)}")
        except ModelError:
            continue
    if found:
        for text in found:
            yield ok("weights", text)
    else:
        yield warning(
            "weights",
            f"no weights of DINOv3 in {cache_folder()}; what is learnt here uses tiny, which is "
            "for trying",
            "unim2 train --backbone dinov3_vits16 ... says the three ways to get them",
        )


def _cores() -> Iterator[Finding]:
    usable, memory = cores(), memory_gib()
    text = f"{usable} usable, {processor()}" + (f"; {memory:.1f} GiB memory" if memory else "")
    limit = os.environ.get("OMP_NUM_THREADS")
    if limit and limit.isdigit() and int(limit) < usable:
        found = f"{text}; OMP_NUM_THREADS={limit} keeps training from using them all"
        yield warning("cores", found, "unset OMP_NUM_THREADS")
        return
    load = os.getloadavg()[0]
    if load > usable:
        found = f"{text}; the machine is busy (load {load:.1f}): timings will not hold"
        yield warning("cores", found, "see what runs: top")
        return
    yield ok("cores", text)


def _disk() -> Iterator[Finding]:
    temporary = Path(tempfile.gettempdir())
    places = {"here": Path.cwd(), "features": default_cache(), "temporary": temporary}
    for name, place in places.items():
        folder = place
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / 2**30
        text = f"{free:.1f} GiB free, {name} ({place})"
        remedy = f"free some: du -xh --max-depth=1 {folder} | sort -h | tail"
        if name == "features":
            remedy += "; or put features elsewhere: export UNIM2_CACHE=DIR"
        if free < NOTHING_GIB:
            yield error("disk", text, remedy)
        elif free < LITTLE_GIB:
            yield warning("disk", text, remedy)
        elif not os.access(folder, os.W_OK):
            yield warning("disk", f"{place} cannot be written to", f"sudo chown $USER {folder}")
        else:
            yield ok("disk", text)
