# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The parameters of the node: declared once in `parameter_specs`, read as one `Settings`.

A new parameter is a line in `SPECS` and its place in `settings_from`; no other room declares one.
"""

from slice_ros.ros.parameters.live_parameters import Parameters
from slice_ros.ros.parameters.settings import ParameterError, Settings, settings_from

__all__ = ['ParameterError', 'Parameters', 'Settings', 'settings_from']
