"""From float32 to int8 with NNCF, on images of one's own drive, and what that costs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.files import sha256
from unim2_core.inference.backends import LIBRARIES, Graph
from unim2_core.inference.engine import Engine
from unim2_core.inference.int8 import FILES, Calibration, Quantized, folder_of, write_int8
from unim2_core.inference.parity import Parity, gate_of
from unim2_core.model.bundle import BACKBONE, Bundle

Images = Mapping[str, NDArray[np.uint8]]
FEWEST = 4
"""Frame sets: half of them give the ranges, the others the figures."""


def quantize(
    bundle: Bundle, sets: Sequence[Images], bag: str, backend: Quantized = "openvino"
) -> Calibration:
    """Make the int8 graph of a bundle's backbone, and keep it where it is good enough.

    Every second set gives the ranges of the numbers inside the network; the others are held out,
    and classes and tokens on them are compared with float32's. Convolutions stay in float32: the
    first one sees pixels, and there is little work in it.

    Args:
        bundle: the model; the graph is put into it.
        sets: modality -> (H, W, 3) uint8 as the backbone sees it; of the whole drive.
        bag: name of the drive.
        backend: that is to run it.

    Returns:
        What was kept.

    Raises:
        ModelError: there are too few sets, a library is not there or cannot, or the graph is too
            far from float32; nothing in the bundle has changed then.
    """
    if len(sets) < FEWEST:
        raise ModelError(
            "too few images to calibrate on",
            expected=f"{FEWEST} frame sets or more",
            found=str(len(sets)),
            remedy="give a longer drive",
        )
    nncf, library = _libraries(backend)
    exact = Engine(bundle, backend)
    calibrated, held_out = sets[::2], sets[1::2]
    graph_file = FILES[backend][0]

    def fill(folder: Path) -> Calibration:
        images = [image[None] for one in calibrated for image in one.values()]
        source = bundle.path / BACKBONE
        convolution = "Conv" if backend == "onnxruntime" else "Convolution"
        options = {
            "model_type": nncf.ModelType.TRANSFORMER,
            "subset_size": len(images),
            "ignored_scope": nncf.IgnoredScope(types=[convolution]),
        }
        if backend == "onnxruntime":
            given = nncf.Dataset([{"images": image} for image in images])
            library.save(
                nncf.quantize(library.load(source), given, **options), folder / graph_file
            )
        else:
            from unim2_core.inference.openvino import core

            read = core().read_model(source)
            model = nncf.quantize(read, nncf.Dataset(images), **options)
            library.save_model(model, folder / graph_file, compress_to_fp16=False)
        # The backend is asked for float32: what is int8 says so by itself.
        graph = LIBRARIES[backend].load(folder / graph_file, "fp32", 0, "cpu")
        found = compared(bundle, exact, graph, held_out)
        return Calibration(
            backbone=sha256(source),
            files={name: sha256(folder / name) for name in FILES[backend]},
            bag=bag,
            calibrated=len(calibrated),
            held_out=len(held_out),
            token_cosine=found.token_cosine,
            max_error=found.max_error,
            agreement=found.agreement,
            versions={one.__name__: one.__version__ for one in (library, nncf)},
        )

    gate = gate_of("int8")
    made = write_int8(bundle.path, backend, fill, lambda facts: gate.passes(facts.parity))
    if not gate.passes(made.parity):
        raise ModelError(
            f"int8 is too far from float32 on {made.held_out} held-out sets of {bag}",
            expected=str(gate),
            found=str(made.parity),
            remedy="give more --frames or a drive more like the next ones; "
            f"{folder_of(backend)} is as it was",
        )
    return made


def compared(bundle: Bundle, exact: Engine, graph: Graph, sets: Sequence[Images]) -> Parity:
    """How far a backbone's graph is from an engine's, over whole sets; their worst and mean.

    Args:
        bundle: the model.
        exact: the engine; its head classifies the tokens of both.
        graph: the other backbone.
        sets: modality -> (H, W, 3) uint8.
    """
    names = [entry.name for entry in bundle.manifest.modalities]
    found: list[Parity] = []
    for images in sets:
        there = [index for index, name in enumerate(names) if name in images]
        pairs = [
            (exact.tokens(image), graph({"images": image})["tokens"].astype(np.float32))
            for image in (images[names[index]][None] for index in there)
        ]
        presence = np.zeros((len(names), *pairs[0][0].shape[1:3]), np.float32)
        presence[there] = 1
        tokens = np.zeros((2, *presence.shape, pairs[0][0].shape[3]), np.float32)
        for index, pair in zip(there, pairs, strict=True):
            tokens[:, index] = np.concatenate(pair)
        stored, classes = (exact.classify(one, presence).classes for one in tokens)
        own = {"tokens": tokens[0, there], "classes": stored}
        found.append(Parity.of(tokens[1, there], classes, own))
    return Parity(
        min(one.token_cosine for one in found),
        max(one.max_error for one in found),
        float(np.mean([one.agreement for one in found])),
    )


def _libraries(backend: Quantized) -> tuple[Any, Any]:
    """NNCF, and what reads and writes the backend's graphs."""
    name = "onnx" if backend == "onnxruntime" else "openvino"
    try:
        import nncf

        library = import_module(name)
    except ImportError as error:
        raise ModelError(
            "a graph cannot be quantized here",
            expected=f"{name} and nncf",
            found=str(error),
            remedy="pip install 'unim2[openvino]'"
            if name == "openvino"
            else "pip install 'unim2[openvino,train]'",
        ) from error
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own way changes handlers of others
    return nncf, library
