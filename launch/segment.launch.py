"""Start the segmentation node, and RViz where it is asked for.

Example:
    ros2 launch unim2_ros segment.launch.py model:=/models/yard.unim2 rgb:=/camera/color/image_raw
"""

from pathlib import Path
from typing import get_args

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from unim2_core.inference.backends import Backend, Device, Precision
from unim2_core.sensing.rig import SENSORS, Rig
from unim2_core.shares import share
from unim2_ros.dds import profile_environment

PARAMETERS = {
    "model": str,
    "rig": str,
    "backend": str,
    "precision": str,
    "device": str,
    "half_auxiliaries": bool,
    "fallback_references": str,
    "autostart": bool,
    "watch_model": float,
    "use_sim_time": bool,
}
RVIZ = "config/rviz/segment.rviz"
SHOWN = ("segmentation", "confidence", "overlay", "points", "camera_info")
"""Outputs that RViz may show; they are moved along with the node."""
BOOLEAN = ["true", "false"]


def _arguments() -> list[DeclareLaunchArgument]:
    """Every argument; an empty one leaves its parameter to params_file or the node's default."""
    inputs = [
        argument
        for sensor in SENSORS
        for argument in (
            DeclareLaunchArgument(
                sensor,
                default_value=f"{sensor}/image",
                description=f"Topic of the {sensor} images, where no rig names it",
            ),
            DeclareLaunchArgument(
                f"{sensor}_info",
                default_value="",
                description=f"Topic of the {sensor} camera_info; empty: beside the images",
            ),
        )
    ]
    return [
        DeclareLaunchArgument("model", description="Path of the model bundle, NAME.unim2"),
        DeclareLaunchArgument(
            "rig",
            default_value="",
            description="Path of a rig file: topics, decoding, extrinsics; "
            "empty: topics as remapped below, cameras taken as aligned",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value="",
            description="YAML file of node parameters; arguments that are given win over it",
        ),
        DeclareLaunchArgument(
            "backend",
            default_value="",
            choices=["", *get_args(Backend)],
            description="What runs the networks; empty: as in params_file, else auto",
        ),
        DeclareLaunchArgument(
            "precision",
            default_value="",
            choices=["", *get_args(Precision)],
            description="What they compute in; empty: as in params_file, else fp32",
        ),
        DeclareLaunchArgument(
            "device",
            default_value="",
            choices=["", *get_args(Device)],
            description="Where they run; empty: as in params_file, else what the backend prefers",
        ),
        DeclareLaunchArgument(
            "half_auxiliaries",
            default_value="",
            choices=["", *BOOLEAN],
            description="All sensors but the reference at half the resolution; "
            "empty: as in params_file, else false",
        ),
        DeclareLaunchArgument(
            "fallback_references",
            default_value="",
            description="Sensors, as in thermal,depth, whose images are segmented while the "
            "reference is silent; empty: as in params_file, else none",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="",
            choices=["", *BOOLEAN],
            description="Configure and activate by itself; false: a lifecycle manager does; "
            "empty: as in params_file, else true",
        ),
        DeclareLaunchArgument(
            "watch_model",
            default_value="",
            description="Seconds between two looks whether the model was replaced; "
            "empty: as in params_file, else never",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node and its topics"
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="",
            choices=["", *BOOLEAN],
            description="Take the time from /clock, as bags play it; empty: as in params_file",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severe log messages that the node writes",
        ),
        DeclareLaunchArgument(
            "rviz",
            default_value="false",
            choices=BOOLEAN,
            description="Start RViz too, with inputs, overlay, mask and labelled points",
        ),
        *inputs,
    ]


def _remappings(given: dict[str, str]) -> list[tuple[str, str]]:
    """The node's relative input names to the robot's topics."""
    remappings = []
    for sensor in SENSORS:
        image = given[sensor]
        info = given[f"{sensor}_info"] or "/".join([*image.split("/")[:-1], "camera_info"])
        remappings += [(f"{sensor}/image", image), (f"{sensor}/camera_info", info)]
    return remappings


def _shown(given: dict[str, str]) -> list[tuple[str, str]]:
    """The names in the RViz file to where the topics are in this launch."""
    root = "/" + given["namespace"].strip("/")
    below = root.rstrip("/")
    moved = [(f"/segment/{name}", f"{below}/segment/{name}") for name in SHOWN]
    sensors = Rig.load(Path(given["rig"])).sensors if given["rig"] else {}
    for sensor in SENSORS:
        topic = sensors[sensor].topic if sensor in sensors else given[sensor]
        moved.append((f"/{sensor}/image", topic if topic.startswith("/") else f"{below}/{topic}"))
    return [(name, topic) for name, topic in moved if name != topic and not topic.endswith("/")]


def _segment(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, with the values that the arguments have by now."""
    given = context.launch_configurations
    parameters: list[object] = [given["params_file"]] if given["params_file"] else []
    parameters.append(
        {
            name: ParameterValue(LaunchConfiguration(name), value_type=kind)
            for name, kind in PARAMETERS.items()
            if given[name]
        }
    )
    profile = profile_environment(context.environment)
    nodes: list[LaunchDescriptionEntity] = [
        Node(
            package="unim2_ros",
            executable="segment_node.py",
            name="segment",
            namespace=given["namespace"],
            parameters=parameters,
            remappings=_remappings(given),
            ros_arguments=["--log-level", given["log_level"]],
            additional_env=profile,
            output="screen",
            emulate_tty=True,
        ),
    ]
    if given["rviz"] == "true":
        nodes.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=given["namespace"],
                arguments=["-d", str(share(RVIZ))],
                parameters=[{"use_sim_time": given["use_sim_time"] == "true"}],
                remappings=_shown(given),
                additional_env=profile,
            )
        )
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Arguments and the nodes, in an environment with the DDS profile for images."""
    return LaunchDescription([*_arguments(), OpaqueFunction(function=_segment)])
