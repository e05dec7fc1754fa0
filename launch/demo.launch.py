# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Play a robot's busy minute on one model: ros2 launch slice_ros demo.launch.py."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, IncludeLaunchDescription
from launch.actions import RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description():
    """Start the node and the demo that asks it; both end with the demo."""
    slice_launch = Path(__file__).with_name('slice.launch.py')
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
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(slice_launch)),
            launch_arguments={
                'namespace': LaunchConfiguration('namespace'),
                'model': LaunchConfiguration('model')}.items()),
        demo,
        RegisterEventHandler(OnProcessExit(
            target_action=demo,
            on_exit=[EmitEvent(event=Shutdown(reason='the demo has ended'))])),
    ])
