"""``unim2 quantize``: the backbone in int8, from the images of a drive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unim2_core.cli.console import console, progress, warn, write_json
from unim2_core.cli.options import JsonFile, RigFile, Topics, rig_from
from unim2_core.data.drives import spread_sets
from unim2_core.inference.int8 import Quantized, folder_of
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle


def command(
    bag: Annotated[Path, typer.Argument(help="The drive to calibrate on.")],
    model: Annotated[Path, typer.Option("--model", help="Model bundle, NAME.unim2.")],
    rig: RigFile = None,
    topic: Topics = None,
    frames: Annotated[
        int, typer.Option(min=4, max=1000, help="Frame sets, spread over the drive.")
    ] = 40,
    backend: Annotated[
        Quantized, typer.Option("--backend", help="What is to run it; each has its own.")
    ] = "openvino",
    json_file: JsonFile = None,
) -> None:
    """Make an int8 graph of a model's backbone and put it into the bundle.

    Half of the frame sets give the ranges of the numbers inside the network. On the other half
    tokens and classes are held against float32's: a graph that is too far off is not kept, and
    the exit status is 1. Whether int8 is faster depends on the CPU: see unim2 bench.

    Example: unim2 quantize drive --model site.unim2 && unim2 bench site.unim2
    """
    from unim2_core.inference.quantization import quantize

    bundle = Bundle(model)
    pipeline = Pipeline(bundle, rig_from(rig, topic), backend)
    for sentence in pipeline.shortcomings:
        warn(sentence)
    sets = []
    with progress("reading", frames) as advance:
        for done, (frame_set, _) in enumerate(spread_sets(bag, pipeline.rig, frames, warn), 1):
            encoded = pipeline.encode(frame_set)
            sets.append({name: image for name, (_, image) in encoded.images.items()})
            advance(done)
    with console.status("quantizing: some minutes for a large backbone"):
        made = quantize(bundle, [one for one in sets if one], bag.name, backend)
    console.print(
        f"int8 on {made.held_out} held-out sets: token cosine {made.token_cosine:.5f} or more, "
        f"label agreement {made.agreement:.4f} to float32; kept in {folder_of(backend)} of "
        f"{model.name}"
    )
    if json_file:
        write_json(json_file, made.model_dump())
