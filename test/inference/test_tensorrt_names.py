"""Every name of TensorRT that the code uses is there, in the oldest and the newest version.

    UNIM2_TENSORRT_BINDINGS=folder:folder pytest test/inference/test_tensorrt_names.py

A folder is what ``pip install --no-deps --target`` makes of tensorrt-cu12-bindings 10.3 or of
tensorrt-cu13-bindings 10.16 and 11.4. The libraries that these link need neither be there nor a
GPU: libraries of nothing but the names stand in for them, so that Python can import the bindings.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from unim2_core.inference import tensorrt, tensorrt_building

SOURCES = (Path(tensorrt.__file__), Path(tensorrt_building.__file__))
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "tensor": "ITensor",
    "config": "IBuilderConfig",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "context": "IExecutionContext",
}
"""Name of a variable or attribute in the sources -> class of what it holds."""
CHAINS = {  # of what is used at once
    "parser.get_error": "ParserError",
    "config.get_timing_cache": "ITimingCache",
}
MODULE = {"trt", "_trt"}
FUNCTIONS = rb"\b(?:create\w+_INTERNAL|get\w*Registry|getNv\w+|initLib\w+)"
"""Of the linked libraries, called when something is made."""
BINDINGS = [Path(p) for p in os.environ.get("UNIM2_TENSORRT_BINDINGS", "").split(":") if p]


def dotted(node: ast.AST) -> str:
    """``self._trt.A.B`` -> ``_trt.A.B``; a call in between counts as the function's name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Name):
        return "self" if node.id == "self" else node.id
    return ""


def used() -> set[str]:
    """Names below TensorRT's module, such as ``Builder.create_network``."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            first, *rest = dotted(node).removeprefix("self.").split(".")
            if not rest:
                continue
            chain = f"{first}.{rest[0]}"
            if first in MODULE:
                found.add(".".join(rest))
            elif chain in CHAINS and len(rest) > 1:
                found.add(f"{CHAINS[chain]}.{rest[1]}")
            elif first in OBJECTS:
                found.add(f"{OBJECTS[first]}.{rest[0]}")
    # Keyword arguments and methods that TensorRT calls are in no attribute.
    return (
        found
        | {f"IProgressMonitor.{n}" for n in ("phase_start", "phase_finish")}
        | {
            "IProgressMonitor.step_complete",
            "ILogger.log",
        }
    )


CHECK = """
import importlib, json, sys
wanted = json.loads(sys.argv[1])
trt = importlib.import_module(sys.argv[2])
missing = []
for name in wanted:
    part = trt
    for step in name.split("."):
        part = getattr(part, step, None)
        if part is None:
            missing.append(name)
            break
keywords = trt.IBuilderConfig.set_timing_cache.__doc__
print(json.dumps([trt.__version__, missing, "ignore_mismatch" in keywords]))
"""


def checked(module: str, environment: dict[str, str]) -> str:
    """The version; fails where a name is missing."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, json.dumps(sorted(used())), module],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, missing, keyword = json.loads(done.stdout.splitlines()[-1])
    print(f"{module} {version}: {len(used())} names")
    assert missing == []
    assert keyword
    return str(version)


def test_the_names_are_found_in_the_sources() -> None:
    names = used()
    for name in (
        "Builder.build_serialized_network",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse",
        "ParserError.desc",
        "ITensor.shape",
        "ICudaEngine.get_tensor_mode",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
        "ITimingCache.serialize",
        "BuilderFlag.TF32",
        "TensorIOMode.INPUT",
        "Runtime.deserialize_cuda_engine",
        "nptype",
    ):
        assert name in names
    gone = {"BuilderFlag.FP16", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"}
    assert not names & gone
    assert not any("device_memory_size" in name or "execute_async_v2" in name for name in names)


@pytest.mark.trt
@pytest.mark.parametrize("module", tensorrt_building.MODULES)
def test_every_name_is_in_what_is_installed(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: its names were not checked")
    checked(module, {})


@pytest.mark.trt
@pytest.mark.skipif(
    not BINDINGS, reason="UNIM2_TENSORRT_BINDINGS is not set: names of 10.3 to 11 were not checked"
)
@pytest.mark.parametrize("folder", BINDINGS, ids=str)
def test_every_name_is_in_the_bindings(folder: Path, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: names of the bindings were not checked")
    [library] = folder.glob("tensorrt_bindings/tensorrt*.so")
    content = library.read_bytes()
    functions = set(
        re.findall(rb"\b(?:create\w+_INTERNAL|get\w*Registry|getNv\w+|initLib\w+)", content)
    )
    (tmp_path / "a.c").write_text("".join(f"void {name.decode()}() {{}}\n" for name in functions))
    for needed in set(re.findall(rb"\blibnv\w+\.so\.\d+", content)):
        name = needed.decode()
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, "a.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(folder)}
    assert checked("tensorrt_bindings", environment)
