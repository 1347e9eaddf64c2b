"""Small synthetic drives, good and poisoned, and a model that was trained on one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.bags import BagReader

MODALITIES = ("rgb", "thermal", "depth")
Change = Callable[[str, int, Any], Any]
"""Topic, number of the message on it, message -> what is written instead; None = nothing."""


def config(seed: int, condition: str = "day", seconds: float = 20.0) -> DriveConfig:
    return DriveConfig(
        seed=seed,
        condition=condition,  # type: ignore[arg-type]
        duration_s=seconds,
        rate_hz=2.0,
        width=128,
        height=96,
        sensors=MODALITIES,
        dropout=0.0,
    )


def make_site(folder: Path) -> Path:
    """A folder with the drives ``day`` and ``night``, ``rig.yaml``, and ``site.unim2``."""
    from unim2_core.cli.training import Places, train_on_drives

    rig = default_rig(config(1))
    (folder / "rig.yaml").write_text(rig.dump())
    write_drive(folder / "day", config(1))
    write_drive(folder / "night", config(2, "night"))
    train_on_drives(
        [folder / "day"],
        rig,
        MODALITIES,
        Places(folder / "site.unim2", folder / "cache", folder / "run"),
        clusters=5,
        steps=40,
        backbone="texture",
    )
    return folder


def rewritten(source: Path, out: Path, change: Change) -> Path:
    """A drive with other messages."""
    counts: dict[str, int] = {}
    with BagReader(source) as reader, BagWriter(out) as writer:
        for message in reader.messages(None):
            number = counts.get(message.topic, 0)
            counts[message.topic] = number + 1
            if not message.topic.endswith("/image"):
                writer.write_raw(message)
                continue
            changed = change(message.topic, number, message.decode())
            if changed is not None:
                writer.write(message.topic, changed, message.log_ns)
    return out


def pixels(message: Any) -> np.ndarray:
    """The image of a message, (H, W) or (H, W, 3)."""
    kind = {"rgb8": np.uint8, "mono16": np.uint16, "16UC1": np.uint16, "32FC1": np.float32}
    flat = np.frombuffer(message.data, kind[message.encoding])
    return flat.reshape(
        message.height,
        message.width,
        *([3] if len(flat) > message.height * (message.width) else []),
    )


def with_pixels(message: Any, array: np.ndarray) -> Any:
    message.data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return message


def images_of(drive: Path, topic: str) -> list[np.ndarray]:
    with BagReader(drive) as reader:
        return [pixels(message.decode()) for message in reader.messages([topic])]


def black(topic: str, number: int, message: Any) -> Any:
    return with_pixels(message, np.zeros_like(pixels(message)))


def black_colour(topic: str, number: int, message: Any) -> Any:
    return black(topic, number, message) if topic == "/rgb/image" else message


def saturated(topic: str, number: int, message: Any) -> Any:
    if topic != "/thermal/image":
        return message
    return with_pixels(message, np.full_like(pixels(message), 65535))


def without_depth(topic: str, number: int, message: Any) -> Any:
    """Depth in metres that is not a number anywhere."""
    if topic != "/depth/image":
        return message
    array = np.full(pixels(message).shape, np.nan, np.float32)
    message.encoding, message.step = "32FC1", 4 * message.width
    return with_pixels(message, array)


def few(topic: str, number: int, message: Any) -> Any:
    return message if number < 10 else None


def repeated(source: Path, modalities: tuple[str, ...] = MODALITIES) -> Change:
    first = {f"/{name}/image": images_of(source, f"/{name}/image")[0] for name in modalities}
    return lambda topic, number, message: with_pixels(message, first[topic])


def shuffled(other: Path) -> Change:
    """Thermal images of another drive, in another order."""
    images = images_of(other, "/thermal/image")

    def change(topic: str, number: int, message: Any) -> Any:
        if topic != "/thermal/image":
            return message
        return with_pixels(message, images[(17 * number + 5) % len(images)])

    return change


def write_more(path: Path, seed: int, condition: str = "day") -> Path:
    """Another drive."""
    write_drive(path, config(seed, condition))
    return path
