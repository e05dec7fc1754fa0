# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Patrol, ask, decide, by a behaviour tree: ros2 launch slice_ros example_patrol.launch.py."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description():
    """Start the slice node and the patrol example."""
    slice_launch = Path(__file__).with_name('slice.launch.py')
    return LaunchDescription([
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of both nodes and their topics.'),
        DeclareLaunchArgument(
            'start_slice', default_value='true', choices=['true', 'false'],
            description='Start the slice node as well; false where it runs already.'),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(slice_launch)),
            launch_arguments={'namespace': LaunchConfiguration('namespace')}.items(),
            condition=IfCondition(LaunchConfiguration('start_slice'))),
        Node(
            package='slice_ros',
            executable='slice_example_patrol',
            name='slice_patrol',
            namespace=LaunchConfiguration('namespace'),
            output='both',
            emulate_tty=True,
        ),
    ])
