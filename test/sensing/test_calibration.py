from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unim2_core.errors import RigError
from unim2_core.sensing.calibration import Intrinsics


def camera_info(ros: int = 2, **changes: Any) -> SimpleNamespace:
    k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    p = [450.0, 0.0, 310.0, 0.0, 0.0, 460.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    matrices = {"k": k, "p": p} if ros == 2 else {"K": k, "P": p}
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    fields = {"width": 640, "height": 480, "binning_x": 0, "binning_y": 0, "roi": roi}
    return SimpleNamespace(**{**matrices, **fields, **changes})


@pytest.mark.parametrize("ros", [1, 2])
def test_raw_and_rectified(ros: int) -> None:
    raw = Intrinsics.from_camera_info(camera_info(ros))
    assert raw == Intrinsics(500, 510, 320, 240, 640, 480)
    rectified = Intrinsics.from_camera_info(camera_info(ros), rectified=True)
    assert rectified == Intrinsics(450, 460, 310, 230, 640, 480)


def test_region_of_interest_and_binning() -> None:
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300)
    found = Intrinsics.from_camera_info(camera_info(roi=roi, binning_x=2, binning_y=2))
    assert found == Intrinsics(250, 255, 110, 100, 200, 150)


def test_scaled_keeps_the_edges_where_they_are() -> None:
    camera = Intrinsics(500, 510, 319.5, 239.5, 640, 480)
    half = camera.scaled((240, 320))
    assert half == Intrinsics(250, 255, 159.5, 119.5, 320, 240)  # still the middle
    assert half.scaled((480, 640)) == camera


@pytest.mark.parametrize("changes", [{"k": [0.0] * 9}, {"k": [float("nan")] * 9}, {"width": 0}])
def test_uncalibrated(changes: dict[str, Any]) -> None:
    with pytest.raises(RigError, match="without calibration"):
        Intrinsics.from_camera_info(camera_info(**changes))
