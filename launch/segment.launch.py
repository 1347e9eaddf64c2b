"""Start the segmentation node.

Example:
    ros2 launch unim2_ros segment.launch.py model:=/models/yard.unim2 rgb:=/camera/color/image_raw
"""

from typing import get_args

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from unim2_core.inference.backends import Backend, Precision
from unim2_core.sensing.rig import SENSORS
from unim2_ros.dds import profile_environment

PARAMETERS = {
    "model": str,
    "rig": str,
    "backend": str,
    "precision": str,
    "half_auxiliaries": bool,
    "use_sim_time": bool,
}


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
            "half_auxiliaries",
            default_value="",
            choices=["", "true", "false"],
            description="All sensors but the reference at half the resolution; "
            "empty: as in params_file, else false",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node and its topics"
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="",
            choices=["", "true", "false"],
            description="Take the time from /clock, as bags play it; empty: as in params_file",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severe log messages that the node writes",
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


def _segment(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node, with the values that the arguments have by now."""
    given = context.launch_configurations
    parameters: list[object] = [given["params_file"]] if given["params_file"] else []
    parameters.append(
        {
            name: ParameterValue(LaunchConfiguration(name), value_type=kind)
            for name, kind in PARAMETERS.items()
            if given[name]
        }
    )
    return [
        Node(
            package="unim2_ros",
            executable="segment_node.py",
            name="segment",
            namespace=given["namespace"],
            parameters=parameters,
            remappings=_remappings(given),
            ros_arguments=["--log-level", given["log_level"]],
            additional_env=profile_environment(context.environment),
            output="screen",
            emulate_tty=True,
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments and the node, in an environment with the DDS profile for images."""
    return LaunchDescription([*_arguments(), OpaqueFunction(function=_segment)])
