"""UniM2 for robots: label-free segmentation from more than one kind of camera (no ROS here)."""

__version__ = "0.1.0"
