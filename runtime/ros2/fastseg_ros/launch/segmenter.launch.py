"""Start the node, configure and activate it.

ros2 launch fastseg_ros segmenter.launch.py bundle:=street.fastseg image:=/camera/image_raw
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

CONFIG = os.path.join("config", "segmenter.yaml")


def generate_launch_description():
    """Return what `ros2 launch` runs."""
    defaults = os.path.join(get_package_share_directory("fastseg_ros"), CONFIG)
    node = LifecycleNode(
        package="fastseg_ros",
        executable="segmenter",
        name="segmenter",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {"bundle": LaunchConfiguration("bundle")},
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("image/compressed", [LaunchConfiguration("image"), "/compressed"]),
        ],
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="NAME.fastseg"),
            DeclareLaunchArgument("image", default_value="image", description="the camera's topic"),
            DeclareLaunchArgument("namespace", default_value=""),
            DeclareLaunchArgument("params_file", default_value=defaults),
            RegisterEventHandler(
                OnStateTransition(
                    target_lifecycle_node=node,
                    start_state="configuring",
                    goal_state="inactive",
                    entities=[change(node, Transition.TRANSITION_ACTIVATE)],
                )
            ),
            node,
            change(node, Transition.TRANSITION_CONFIGURE),
        ]
    )


def change(node, transition_id):
    """Return what asks a node for a transition."""
    event = ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition_id)
    return EmitEvent(event=event)
