"""Synthetic drives: a procedural street seen by the five cameras of a robot, with ground truth.

    config = DriveConfig(seed=3, condition="night", duration_s=20)
    write_drive(Path("drive"), config)          # a rosbag2 that any ROS tool opens
    default_rig(config)                         # the rig file that goes with it
    image, label, depth_m = render(config, 1.5, "thermal")

The same configuration gives the same bytes, whatever the number of workers. The world is
frozen: figures compare only between drives of one ``WORLD_VERSION``.
"""

from unim2_core.data.drive_writer import DriveSummary, default_rig, write_drive
from unim2_core.data.world.config import DriveConfig
from unim2_core.data.world.materials import CLASSES, PALETTE
from unim2_core.data.world.mounts import REFERENCE
from unim2_core.data.world.rendering import Rendering, render
from unim2_core.data.world.scene import WORLD_VERSION

__all__ = [
    "CLASSES",
    "PALETTE",
    "REFERENCE",
    "WORLD_VERSION",
    "DriveConfig",
    "DriveSummary",
    "Rendering",
    "default_rig",
    "render",
    "write_drive",
]
