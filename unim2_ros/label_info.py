"""The names of the classes for other nodes, where ``vision_msgs`` is installed."""

from __future__ import annotations

from typing import Any

from unim2_core.model.bundle import Bundle

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # it has no wheel
    LabelInfo = VisionClass = None


def label_info_message(bundle: Bundle, stamp: Any) -> Any:
    """Make a LabelInfo; unlabelled, 255, is one of its classes: some consumers need them all.

    Args:
        bundle: the model.
        stamp: time of publication.
    """
    message = LabelInfo()
    message.header.stamp = stamp
    message.class_map = [
        *(
            VisionClass(class_id=label.id, class_name=label.name)
            for label in bundle.manifest.labels
        ),
        VisionClass(class_id=255, class_name="unlabelled"),
    ]
    return message
