"""The reference page says what the node is."""

from __future__ import annotations

import pytest
from checkout import ROOT, needs_checkout

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from unim2_ros.reference import PAGE, reference

pytestmark = [pytest.mark.ros, needs_checkout]


def test_the_page_is_current() -> None:
    written = (ROOT / PAGE).read_text(encoding="utf-8")
    assert written == reference(), f"python -m unim2_ros.reference > {PAGE}"
