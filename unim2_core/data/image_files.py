"""Files of image data sets: reading them, and saying clearly what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DataError

Array = NDArray[Any]

_SHOWN = 10


def read_array(path: Path) -> Array:
    """Read an image file, or an array saved by NumPy (``.npy``), as it is.

    Returns:
        (H, W) or (H, W, C) in the file's own type; colours in the order red, green, blue, alpha,
        a palette resolved. An orientation noted in the file is not applied.

    Raises:
        DataError: the file is missing, damaged or of a kind that is not known.
    """
    image: Array | None
    try:
        if path.suffix == ".npy":
            image = np.asarray(np.load(path, allow_pickle=False))
        else:
            content = np.frombuffer(path.read_bytes(), np.uint8)
            image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except (OSError, ValueError, EOFError, cv2.error) as error:
        raise _unreadable(path, next(iter(str(error).splitlines()), "nothing")) from error
    if image is None or image.size == 0 or image.ndim not in (2, 3):
        raise _unreadable(path, "no image" if image is None else f"an array of {image.shape}")
    if path.suffix == ".npy" or image.ndim == 2:
        return image
    if image.shape[2] not in (3, 4):
        return image
    code = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    rgb: Array = cv2.cvtColor(image, code)
    return rgb


def channels_of(image: Array, channels: tuple[int, ...] | None, path: Path) -> Array:
    """Pick channels of an image, in the order given; None = all.

    Raises:
        DataError: the image has fewer.
    """
    if channels is None:
        return image
    planes = image[..., None] if image.ndim == 2 else image
    if max(channels) >= planes.shape[2]:
        raise DataError(
            f"{path} has too few channels",
            expected=f"channel {max(channels)}, counted from 0 as red, green, blue, alpha",
            found=f"{planes.shape[2]} channels",
            remedy="mend channels in the data set's file",
        )
    return np.ascontiguousarray(planes[..., list(channels)])


def one_channel(image: Array, path: Path) -> Array:
    """(H, W) of an image with one channel, or with three equal ones.

    Raises:
        DataError: it has several that differ.
    """
    if image.ndim == 2:
        return image
    if image.shape[2] == 1 or (
        image.shape[2] == 3 and bool((image == image[..., :1]).all())  # grey saved as colour
    ):
        return np.ascontiguousarray(image[..., 0])
    raise DataError(
        f"{path} is in colour, and one channel is needed",
        expected="one channel, or three equal ones",
        found=f"{image.shape[2]} channels that differ",
        remedy="say which one with channels: [0], or check that this is the right file",
    )


def three_channels(image: Array, path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: one channel three times, a fourth one left out.

    Raises:
        DataError: it has another number of channels, or is not of 8 bits.
    """
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.dtype != np.uint8 or image.shape[2] not in (3, 4):
        raise DataError(
            f"{path} is not an image of the expected kind",
            expected="8 bit, in 1, 3 or 4 channels",
            found=f"{image.dtype} of shape {image.shape}",
            remedy="convert it to 8 bit, or say with as what it measures: depth, thermal, nir",
        )
    return np.ascontiguousarray(image[..., :3])


def require_files(paths: Iterable[Path], what: str) -> None:
    """Check that all files are there, before anything is computed.

    Args:
        paths: of the files.
        what: whose they are, for the message.

    Raises:
        DataError: some are not; it says how many and names the first ten.
    """
    wanted = list(paths)
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} files of {what} are missing",
            expected="every file that the data set lists",
            found="no " + ", no ".join(map(str, missing[:_SHOWN])) + more(len(missing)),
            remedy="complete the data set, or check the folder given with --root",
        )


def more(count: int) -> str:
    """What to add to a message that names the first ten of ``count``."""
    return f", and {count - _SHOWN} more" if count > _SHOWN else ""


def listed_names(path: Path) -> tuple[str, ...]:
    """The first word of each line of a list file that is not empty.

    Raises:
        DataError: it cannot be read, or lists nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    names = tuple(line.split()[0] for line in lines if line.strip())
    if not names:
        raise _unreadable(path, "an empty list")
    return names


def _unreadable(path: Path, found: str) -> DataError:
    return DataError(
        f"cannot read {path}",
        expected="an image (PNG, JPEG, TIFF), a NumPy array (.npy), or a list of names (.txt)",
        found=found,
        remedy="replace the file: it is missing, damaged or of another kind",
    )
