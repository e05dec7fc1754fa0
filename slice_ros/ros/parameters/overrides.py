# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Names in parameter files and on the command line that no parameter has: ROS ignores them."""

from collections.abc import Collection
from difflib import get_close_matches

from rclpy.node import Node
from slice_ros.ros.compat import given_parameters
from slice_ros.ros.parameters.parameter_specs import class_specs, CLASSES, SPECS

OF_ROS = ('qos_overrides.',)   # rclpy declares these itself, when it needs them
MOST = 20           # unknown names that are reported one by one
MAX_NAME = 120      # characters of a name in a sentence


def unknown_overrides(node: Node, classes: Collection[str]) -> list[str]:
    """Return a sentence for each override of `node` that no declared parameter takes."""
    unknown = [name for name in given_parameters(node)
               if not node.has_parameter(name) and not name.startswith(OF_ROS)]
    sentences = [_sentence(name, classes) for name in unknown[:MOST]]
    if len(unknown) > MOST:
        sentences.append(f'{len(unknown) - MOST} more parameters are unknown and ignored')
    return sentences


def _sentence(name: str, classes: Collection[str]) -> str:
    known = [spec.name for spec in (CLASSES, *SPECS)]
    known += [spec.name for each in classes for spec in class_specs(each)]
    shown, parts = name[:MAX_NAME], name.split('.')
    fields = [spec.name.rpartition('.')[2] for spec in class_specs('any')]
    if (len(parts) == 3 and parts[0] == 'slo' and parts[2] in fields
            and not get_close_matches(parts[1], classes, 1)):
        return (f'the parameter {shown} is ignored: slo.classes names no class {parts[1][:63]}')
    near = get_close_matches(shown, known, 1)
    hint = f'did you mean {near[0]}?' if near else 'config/slice.yaml names all that there are'
    return f'the parameter {shown} is unknown and ignored: {hint}'
