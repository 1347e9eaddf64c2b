from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from unim2_core.errors import Unim2Error
from unim2_core.showing.film import Film, contact_sheet, write_png


def test_every_picture_is_in_the_video(tmp_path: Path) -> None:
    with Film(tmp_path / "film.mp4", rate_hz=10) as film:
        for index in range(7):
            film.add(np.full((49, 64, 3), 30 * index, np.uint8))
        assert not (tmp_path / "film.mp4").exists()
    video = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert len(frames) == 7
    assert frames[0].shape == (48, 64, 3)
    assert abs(int(frames[5].mean()) - 150) < 8


def test_an_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Film(tmp_path / "film.mp4", rate_hz=10) as film:
        film.add(np.zeros((48, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_stacks_rows_and_keeps_colours(tmp_path: Path) -> None:
    rows = [np.full((10, 30, 3), (200, 10, 30), np.uint8), np.full((10, 20, 3), 90, np.uint8)]
    write_png(tmp_path / "sheet.png", contact_sheet(rows))
    image = cv2.imread(str(tmp_path / "sheet.png"))
    assert image.shape == (20, 30, 3)
    assert tuple(image[0, 0]) == (30, 10, 200)  # OpenCV reads blue first


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unim2Error, match="cannot write"):
        write_png(tmp_path / "no" / "sheet.png", np.zeros((4, 4, 3), np.uint8))
