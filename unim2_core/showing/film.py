"""Pictures of a run: a video of every frame and a contact sheet of a few."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import Unim2Error

Image = NDArray[np.uint8]


class Film:
    """Writes a video; it has its name only once it is complete."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        """Prepare; the first picture decides the size.

        Args:
            path: an ``.mp4`` file.
            rate_hz: pictures a second.
        """
        self._path = path
        self._draft = path.with_name(f".{path.name}.partial{path.suffix}")
        self._rate_hz = rate_hz
        self._video: cv2.VideoWriter | None = None

    def __enter__(self) -> Film:
        return self

    def add(self, picture: Image) -> None:
        """Append a picture: (H, W, 3) uint8 RGB, all of one size.

        Raises:
            Unim2Error: this OpenCV cannot write the video.
        """
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        if self._video is None:
            size = (picture.shape[1], picture.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(self._draft), codec, self._rate_hz, size)
            if not self._video.isOpened():
                raise Unim2Error(
                    f"cannot write the video {self._path}",
                    expected="an OpenCV that can encode mp4v, and a folder that can be written to",
                    found=f"OpenCV {cv2.__version__} refused",
                    remedy="install opencv-python-headless from PyPI",
                )
        self._video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._video is None:
            return
        self._video.release()
        if kind is None:
            os.replace(self._draft, self._path)
        else:
            self._draft.unlink(missing_ok=True)


def contact_sheet(rows: Sequence[Image]) -> Image:
    """Stack pictures of any width; narrower ones are filled up on the right.

    Args:
        rows: (H, W, 3) uint8 each.

    Returns:
        (sum of H, largest W, 3) uint8.
    """
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.concatenate(filled)


def write_png(path: Path, picture: Image) -> None:
    """Write an RGB picture as PNG.

    Raises:
        Unim2Error: it cannot be written.
    """
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise Unim2Error(
            f"cannot write {path}",
            expected="a folder that can be written to",
            found="it could not be",
            remedy="choose another place with --out",
        )
