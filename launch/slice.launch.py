# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Start the language model server of a robot: ros2 launch slice_ros slice.launch.py."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description():
    """Declare the arguments; the node is made when they have their values."""
    share = Path(get_package_share_directory('slice_ros'))
    return LaunchDescription([
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='Namespace of the node; its topics, services and action live below '
                        '<namespace>/slice.'),
        DeclareLaunchArgument(
            'params_file', default_value=str(share / 'config' / 'slice.yaml'),
            description='YAML file with the parameters: SLO classes, scheduler, engine, limits.'),
        DeclareLaunchArgument(
            'model', default_value='',
            description='Model to serve: a Hugging Face directory or a .gguf file. Empty: the '
                        'engine.model of params_file, or else the embedded '
                        'SmolLM2-135M-Instruct.'),
        DeclareLaunchArgument(
            'log_level', default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Lowest severity that the node logs.'),
        DeclareLaunchArgument(
            'respawn', default_value='false', choices=['true', 'false'],
            description='Start the node again 5 s after it ends.'),
        DeclareLaunchArgument(
            'gateway_port', default_value='',
            description='Port at which slice_gateway serves the node by HTTP, to this machine '
                        'alone. Empty: none.'),
        OpaqueFunction(function=_slice_node),
        OpaqueFunction(function=_gateway),
    ])


def _slice_node(context):
    parameters = [LaunchConfiguration('params_file')]
    if LaunchConfiguration('model').perform(context):
        # Only when given: an empty string would override params_file.
        model = ParameterValue(LaunchConfiguration('model'), value_type=str)
        parameters.append({'engine.model': model})
    return [Node(
        package='slice_ros',
        executable='slice_node',
        name='slice',
        namespace=LaunchConfiguration('namespace'),
        parameters=parameters,
        # Not by the logger's name, which begins with the namespace that a group may push.
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        respawn=LaunchConfiguration('respawn').perform(context) == 'true',
        respawn_delay=5.0,
        output='both',
        emulate_tty=True,
    )]


def _gateway(context):
    port = LaunchConfiguration('gateway_port').perform(context)
    return [Node(
        package='slice_ros',
        executable='slice_gateway',
        name='slice_gateway',
        namespace=LaunchConfiguration('namespace'),
        arguments=['--port', port],
        output='both',
        emulate_tty=True,
    )] if port else []
