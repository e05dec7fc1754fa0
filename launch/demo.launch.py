# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Play a robot's busy minute on one model: ros2 launch slice_ros demo.launch.py."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from slice_ros.cli.robots_minute import preambles


def generate_launch_description():
    """Start the node and the demo that asks it; both end with the demo."""
    config = Path(get_package_share_directory('slice_ros')) / 'config' / 'slice.yaml'
    # As texts: launch reads others as YAML, and these look like it.
    parameters = {name: ParameterValue(value, value_type=str) for name, value in (
        ('engine.model', LaunchConfiguration('model')), *preambles().items())}
    node = Node(
        package='slice_ros',
        executable='slice_node',
        name='slice',
        namespace=LaunchConfiguration('namespace'),
        parameters=[str(config), parameters],
        output='both',
        emulate_tty=True,
    )
    demo = Node(
        package='slice_ros',
        executable='slice_demo',
        namespace=LaunchConfiguration('namespace'),
        arguments=['--node', 'slice', '--report', LaunchConfiguration('report')],
        output='both',
        emulate_tty=True,
    )
    return LaunchDescription([
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of the node and its topics.'),
        DeclareLaunchArgument(
            'model', default_value='',
            description='Model to serve, as for slice.launch.py.'),
        DeclareLaunchArgument(
            'report', default_value='demo_report.json',
            description='File that the figures are written to.'),
        node,
        demo,
        RegisterEventHandler(OnProcessExit(
            target_action=demo,
            on_exit=[EmitEvent(event=Shutdown(reason='the demo has ended'))])),
    ])
