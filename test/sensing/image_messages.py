"""Image messages built byte by byte, without the code under test."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np

# encoding -> struct code of a sample, samples a pixel
LAYOUTS = {
    "mono8": ("B", 1),
    "8UC1": ("B", 1),
    "mono16": ("H", 1),
    "16UC1": ("H", 1),
    "16SC1": ("h", 1),
    "32FC1": ("f", 1),
    "rgb8": ("B", 3),
    "bgr8": ("B", 3),
    "8UC3": ("B", 3),
    "rgb16": ("H", 3),
    "bgr16": ("H", 3),
    "rgba8": ("B", 4),
    "bgra8": ("B", 4),
    "8UC4": ("B", 4),
    "rgba16": ("H", 4),
    "bgra16": ("H", 4),
    "uyvy": ("B", 2),
    "yuv422": ("B", 2),
    "yuyv": ("B", 2),
    "yuv422_yuy2": ("B", 2),
    **{f"bayer_{pattern}8": ("B", 1) for pattern in ("rggb", "bggr", "grbg", "gbrg")},
    **{f"bayer_{pattern}16": ("H", 1) for pattern in ("rggb", "bggr", "grbg", "gbrg")},
}
PADDING = 0xAB


def image_message(
    samples: np.ndarray, encoding: str, *, padding: int = 0, big_endian: bool = False
) -> SimpleNamespace:
    """A sensor_msgs/Image of (H, W) or (H, W, n) samples, its data as bytes."""
    code, _ = LAYOUTS[encoding]
    order = ">" if big_endian else "<"
    rows = [
        struct.pack(f"{order}{row.size}{code}", *row.ravel().tolist()) + bytes([PADDING] * padding)
        for row in samples
    ]
    return SimpleNamespace(
        header=SimpleNamespace(frame_id="camera"),
        height=samples.shape[0],
        width=samples.shape[1],
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=len(rows[0]),
        data=b"".join(rows),
    )


def compressed_message(stream: bytes, format_: str) -> SimpleNamespace:
    """A sensor_msgs/CompressedImage."""
    header = SimpleNamespace(frame_id="camera")
    return SimpleNamespace(header=header, format=format_, data=stream)
