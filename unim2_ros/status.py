"""Our own status message, where it is built: what one segmentation was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.time import Time

from unim2_core.inference.pipeline import Segmentation
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.frames import FrameSet

try:
    from unim2_ros.msg import SegmentationStatus
except ImportError:  # the wheels have no rosidl to build it
    SegmentationStatus = None


def status_message(
    header: Any,
    now: Time,
    frames: FrameSet,
    result: Segmentation,
    bundle: Bundle,
    backend: str,
    drops: Mapping[str, int],
) -> Any:
    """Make a SegmentationStatus; see ``msg/SegmentationStatus.msg`` for the fields.

    Args:
        header: the reference image's.
        now: time of publication.
        frames: what was there.
        result: what came of it.
        bundle: the model.
        backend: what ran it.
        drops: reason -> count since the start.
    """
    used = [name for name in frames.frames if name in frames.skew_s]
    used.insert(0, frames.reference)
    return SegmentationStatus(
        header=header,
        modalities=used,
        skew_s=[frames.skew_s.get(name, 0.0) for name in used],
        age_s=[(now.nanoseconds - frames.frames[name].stamp_ns) / 1e9 for name in used],
        missing=list(result.missing),
        missing_reasons=list(result.missing.values()),
        stages=list(result.latency_ms),
        stage_ms=list(result.latency_ms.values()),
        model_name=bundle.manifest.name,
        model_sha256=result.version,
        backend=backend,
        drop_reasons=list(drops),
        drop_counts=list(drops.values()),
    )
