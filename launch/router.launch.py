# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Start one door to several slice nodes: ros2 launch slice_ros router.launch.py."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description():
    """Start the router; the slice nodes are started where they run."""
    return LaunchDescription([
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of the router; its services and its action live below '
                        '<namespace>/slice_router.'),
        DeclareLaunchArgument(
            'nodes', default_value="['/onboard/slice', '/station/slice']",
            description='Full names of the slice nodes, as YAML; the first is on board.'),
        Node(
            package='slice_ros',
            executable='slice_router',
            name='slice_router',
            namespace=LaunchConfiguration('namespace'),
            parameters=[{'nodes': ParameterValue(LaunchConfiguration('nodes'))}],
            output='both',
            emulate_tty=True,
        ),
    ])
