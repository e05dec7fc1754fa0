# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What a build with SLICE_CLIENT_ONLY=1 is made of: all that its programs import, no engine."""

from pathlib import Path
import re
import subprocess
import sys

from catkin_pkg.package import parse_package
import pytest
from test_manifest import imported
from test_structure import import_graph, modules

ROOT = Path(__file__).resolve().parents[2]
LISTED = (ROOT / 'cmake' / 'client_modules.txt').read_text().split()
# What a planner runs or copies.
ENTRIES = ('client', 'behaviours', 'cli.ask', 'cli.monitor', 'examples.control',
           'examples.goal_planner', 'examples.look', 'examples.patrol_tree',
           'examples.talker', 'router.router_main')
ENGINE = ('torch', 'transformers', 'slice_ros.engine', 'slice_ros.serving', 'slice_ros.ros.node')


def needed() -> set[str]:
    """Return the modules that are imported by what a planner runs, with their rooms."""
    graph, found, left = import_graph(), {''}, list(ENTRIES)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [*graph[name], name.rpartition('.')[0]]
    return found


def test_the_list_is_what_its_programs_import():
    files = modules()
    wanted = {files[name].relative_to(ROOT).as_posix() for name in needed()}
    assert set(LISTED) == wanted | {'slice_ros/py.typed'}


@pytest.mark.parametrize('module', ENTRIES)
def test_no_import_brings_the_engine(module):
    """In a process of its own, in which nothing else has been imported."""
    code = (f'import sys, slice_ros.{module}\n'
            f'print(*(name for name in {ENGINE} if name in sys.modules))')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == '', done.stderr + done.stdout


def test_rosdep_leaves_out_what_the_engine_needs():
    def names(environment):
        package = parse_package(str(ROOT))
        package.evaluate_conditions(environment)
        return {each.name for each in package.exec_depends if each.evaluated_condition}
    whole, client = names({}), names({'SLICE_CLIENT_ONLY': '1'})
    assert {'python3-scipy', 'lifecycle_msgs'} <= whole - client
    assert names({'SLICE_CLIENT_ONLY': '0'}) == whole
    ros = {name for name in imported(*(ROOT / file for file in LISTED if file.endswith('.py')),
                                     *(ROOT / 'launch').glob('example_*.py'))
           if re.search('^(rclpy|launch|ament_)|_(msgs|interfaces)$', name)}
    assert ros and ros <= client
