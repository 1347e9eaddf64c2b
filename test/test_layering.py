"""Who may import whom: no ROS in the core, no torch on a robot, and one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from checkout import ROOT, needs_checkout

pytestmark = needs_checkout
CORE = ROOT / "unim2_core"
MAX_LINES = 400

BLOCKED = (
    *("rclpy", "rcl_interfaces", "builtin_interfaces", "std_msgs", "sensor_msgs"),
    *("diagnostic_msgs", "geometry_msgs", "vision_msgs", "tf2_msgs", "tf2_ros"),
    *("message_filters", "cv_bridge", "launch", "launch_ros", "unim2_ros"),
    *("torch", "onnx", "onnxscript", "transformers", "timm"),
)
TRAINING_SIDE = tuple(
    f"unim2_core.inference.{name}"
    for name in ("adapting", "bundling", "cuda_graph", "export", "torch")
)
WITH_ONNX = tuple(
    f"unim2_core.inference.{name}" for name in ("half_precision", "graph_forms", "graph_files")
)
"""Imported where a graph is converted, and nowhere else."""
LAYERS = (
    ("errors", "files", "shares", "__init__"),
    ("sensing",),
    ("model", "data"),
    ("inference", "learning", "evaluation", "showing"),
    ("fleet",),
    ("cli",),
)
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}

IMPORT_ALL = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"a robot does not have {{name}}", name=name)

sys.meta_path.insert(0, Blocker())
for name in {modules!r}:
    importlib.import_module(name)
"""


def modules(folder: Path) -> list[str]:
    """Dotted names of all modules below a folder of the project."""
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in folder.rglob("*.py")
    )


def robot_modules() -> list[str]:
    """Everything that a robot runs."""
    packages = [modules(CORE / name) for name in ("sensing", "inference", "showing")]
    single = [f"unim2_core.{name}" for name in ("errors", "files", "shares")]
    names = [*single, "unim2_core.model.bundle", "unim2_core.cli.main"]
    return [name for name in sum(packages, names) if name not in (*TRAINING_SIDE, *WITH_ONNX)]


def import_all(names: list[str], blocked: tuple[str, ...] = BLOCKED) -> str:
    """Import in a fresh interpreter where some packages do not exist; returns what went wrong."""
    code = IMPORT_ALL.format(blocked=blocked, modules=names)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stderr if done.returncode else ""


def imports(path: Path) -> set[str]:
    """Absolute names of all that a module of the core imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: import absolutely, as everywhere else"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(path: Path) -> str:
    """Name of the package of the core (or the module at its top) that a file belongs to."""
    return path.relative_to(CORE).with_suffix("").parts[0]


def edges() -> dict[tuple[str, str], list[str]]:
    """(importing part, imported part) -> the files that do it."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in CORE.rglob("*.py"):
        for name in imports(path):
            if name.startswith("unim2_core."):
                other = name.split(".")[1]
                other = other if other in LAYER else "__init__"  # a name defined in __init__
                if other != part(path):
                    found.setdefault((part(path), other), []).append(str(path.relative_to(ROOT)))
    return found


def test_a_robot_needs_neither_ros_nor_torch():
    assert "unim2_core.sensing.rig" in robot_modules()
    assert import_all(robot_modules()) == ""


def test_the_check_above_would_notice():
    assert "numpy" in import_all(["unim2_core.sensing.frames"], (*BLOCKED, "numpy"))


def test_the_core_never_names_ros():
    ros = set(BLOCKED[: BLOCKED.index("torch")])
    for path in CORE.rglob("*.py"):
        found = {name.split(".")[0] for name in imports(path)} & ros
        assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)}"


def test_every_part_of_the_core_has_a_layer():
    assert {part(path) for path in CORE.rglob("*.py")} <= set(LAYER)


def test_imports_go_down():
    upward = {edge: files for edge, files in edges().items() if LAYER[edge[0]] < LAYER[edge[1]]}
    assert not upward


def test_parts_of_one_layer_do_not_need_each_other_mutually():
    graph: dict[str, set[str]] = {}
    for importing, imported in edges():
        graph.setdefault(importing, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle {error.args[1]}")


def test_no_file_is_a_god():
    sources = [
        path
        for name in ("unim2_core", "unim2_ros", "launch", "test")
        for path in (ROOT / name).rglob("*.py")
    ]
    long = {
        str(path.relative_to(ROOT)): count
        for path in sources
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long
