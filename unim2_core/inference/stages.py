"""Where a frame's time goes, from a bag's messages to those of the node."""

from __future__ import annotations

import time
from collections import defaultdict

from unim2_core.data.drives import take
from unim2_core.errors import DecodeError
from unim2_core.inference.pipeline import Pipeline
from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.intake import Intake
from unim2_core.showing.overlay import overlay
from unim2_core.showing.palette import color_table


def stage_times(reader: BagReader, pipeline: Pipeline, frames: int) -> dict[str, list[float]]:
    """Run the first frames of a bag through the whole path.

    Args:
        reader: the open bag.
        pipeline: the model on an engine.
        frames: how many are timed, at most; one before them warms up.

    Returns:
        Stage -> milliseconds of each frame: ``sync`` (deserialising and synchronising all messages
        since the frame before), ``decode``, ``encode``, ``backbone``, ``register``, ``head`` and
        ``publish`` (overlay and messages are made; sending them is not measured).
    """
    intake = Intake(pipeline.rig)
    labels = pipeline.bundle.manifest.labels
    colors = color_table({label.id: label.color for label in labels})
    wanted = {*intake.topics, *intake.info_topics} & set(reader.topics)
    found: dict[str, list[float]] = defaultdict(list)
    waited = 0.0
    for message in reader.messages(wanted):
        start = time.perf_counter()
        complete = take(intake, message)
        waited += time.perf_counter() - start
        for matched in complete:
            start = time.perf_counter()
            try:
                frame_set = intake.decode(matched)
            except DecodeError:
                continue
            decoded = time.perf_counter()
            result = pipeline(frame_set)
            computed = time.perf_counter()
            seen = overlay(result.picture(frame_set), result.classes, colors)
            stamp_ns = frame_set.frames[frame_set.reference].stamp_ns
            for pixels, kind in (
                (result.classes, "mono8"),
                (result.confidence, "mono8"),
                (seen, "rgb8"),
            ):
                image_message(pixels, kind, stamp_ns, "")
            found["sync"].append(1e3 * waited)
            found["decode"].append(1e3 * (decoded - start))
            for stage, milliseconds in result.latency_ms.items():
                found[stage].append(milliseconds)
            found["publish"].append(1e3 * (time.perf_counter() - computed))
            waited = 0.0
            if len(found["sync"]) > frames:
                return {stage: values[1:] for stage, values in found.items()}
    return {stage: values[1:] for stage, values in found.items()}
