"""Play a bag to the segmentation node and show what comes of it in RViz.

Example:
    ros2 launch unim2_ros replay.launch.py bag:=drive model:=yard.unim2 rig:=robot.yaml
"""

import sys

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource

from unim2_core.shares import share
from unim2_ros.dds import profile_environment

PASSED_ON = ("model", "rig", "params_file", "namespace", "rviz")
UNIM2 = [sys.executable, "-c", "from unim2_core.cli.main import run; run()"]
BOOLEAN = ["true", "false"]


def _arguments() -> list[DeclareLaunchArgument]:
    return [
        DeclareLaunchArgument("bag", description="Path of the bag to play"),
        DeclareLaunchArgument("model", description="Path of the model bundle, NAME.unim2"),
        DeclareLaunchArgument(
            "rig",
            default_value="",
            description="Path of a rig file; empty: topics <sensor>/image, cameras aligned",
        ),
        DeclareLaunchArgument(
            "params_file", default_value="", description="YAML file of node parameters"
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node and its topics"
        ),
        DeclareLaunchArgument(
            "rate", default_value="1.0", description="Times as fast as it was recorded"
        ),
        DeclareLaunchArgument(
            "loop", default_value="false", choices=BOOLEAN, description="Play it again and again"
        ),
        DeclareLaunchArgument(
            "rviz", default_value="true", choices=BOOLEAN, description="Start RViz too"
        ),
        DeclareLaunchArgument(
            "adapt",
            default_value="false",
            choices=BOOLEAN,
            description="When the bag has ended, let the model learn from it; the node takes a "
            "version that is accepted",
        ),
    ]


def _replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    passed = {name: given[name] for name in PASSED_ON} | {"use_sim_time": "true"}
    play = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", given["bag"], "--clock", "--rate", given["rate"]),
            *(["--loop"] if given["loop"] == "true" else []),
        ],
        additional_env=profile_environment(context.environment),
        output="screen",
    )
    entities: list[LaunchDescriptionEntity] = []
    if given["adapt"] == "true":
        passed["watch_model"] = "1.0"
        rig = ["--rig", given["rig"]] if given["rig"] else []
        learn = ExecuteProcess(
            cmd=[*UNIM2, "adapt", given["model"], "--bag", given["bag"], *rig], output="screen"
        )
        entities.append(RegisterEventHandler(OnProcessExit(target_action=play, on_exit=[learn])))
    segment = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share("launch/segment.launch.py"))),
        launch_arguments=passed.items(),
    )
    return [*entities, segment, play]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the node, the player and what follows."""
    return LaunchDescription([*_arguments(), OpaqueFunction(function=_replay)])
