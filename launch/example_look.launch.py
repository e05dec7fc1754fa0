# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Answer questions about a camera: ros2 launch slice_ros example_look.launch.py model:=DIRECTORY.

The camera's topic is `image` or `image/compressed`: remap the driver's, or this one.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description():
    """Start the slice node and the example that looks."""
    slice_launch = Path(__file__).with_name('slice.launch.py')
    return LaunchDescription([
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of both nodes and their topics.'),
        DeclareLaunchArgument(
            'start_slice', default_value='true', choices=['true', 'false'],
            description='Start the slice node as well; false where it runs already.'),
        DeclareLaunchArgument(
            'model', default_value='',
            description='Directory of a model that sees; docs/images.md names some.'),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(slice_launch)),
            launch_arguments={'namespace': LaunchConfiguration('namespace'),
                              'model': LaunchConfiguration('model')}.items(),
            condition=IfCondition(LaunchConfiguration('start_slice'))),
        Node(
            package='slice_ros',
            executable='slice_example_look',
            name='slice_look',
            namespace=LaunchConfiguration('namespace'),
            output='both',
            emulate_tty=True,
        ),
    ])
