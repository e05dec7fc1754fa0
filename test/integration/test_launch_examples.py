# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files of the examples and the demo: the checks that `test_programs.py` runs."""

import os
from pathlib import Path
import sys
import tempfile
import unittest

import pytest

launch_testing = pytest.importorskip(
    'launch_testing', reason='needs the ROS 2 launch stack: launch_testing is not installed')

from launch import LaunchDescription  # noqa: E402,I100
from launch.actions import ExecuteProcess, IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_testing.actions import ReadyToTest  # noqa: E402
from launch_testing.asserts import assertExitCodes  # noqa: E402
from launch_testing.markers import keep_alive  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))  # `launch_test` does not do it
from example_checks import check_demo_report, EXAMPLE_CHECKS  # noqa: E402,I100
from robot import Robot  # noqa: E402

LAUNCH = Path(__file__).resolve().parents[2] / 'launch'


@pytest.mark.launch
@pytest.mark.launch_test
@keep_alive
def generate_test_description():
    """Launch the examples beside one node, and the demo, which starts and ends its own."""
    os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
    report = Path(tempfile.mkdtemp()) / 'report.json'
    demo = ExecuteProcess(cmd=['ros2', 'launch', str(LAUNCH / 'demo.launch.py'),
                               'namespace:=stage', f'report:={report}'], output='screen')
    return LaunchDescription([
        *(IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(LAUNCH / f'example_{name}.launch.py')),
            launch_arguments={'namespace': 'robot', 'start_slice': start_slice}.items())
            for name, start_slice in (
                ('control', 'true'), ('planner', 'false'), ('talker', 'false'),
                ('patrol', 'false'), ('look', 'false'))),
        demo,
        ReadyToTest(),
    ]), {'demo': demo, 'report': report}


class TestExamples(unittest.TestCase):
    """While the nodes are up."""

    def test_examples(self):
        """Every check of an example."""
        robot = Robot('/robot/slice')
        try:
            robot.wait_until_ready()
            for check in EXAMPLE_CHECKS:
                with self.subTest(check.__name__):
                    check(robot)
        finally:
            robot.close()

    def test_the_demo_ends_by_itself(self, proc_info, demo, report):
        """And with it the node that its launch file has started."""
        proc_info.assertWaitForShutdown(process=demo, timeout=180)
        check_demo_report(report)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """After launch has stopped the nodes."""

    def test_exit_code(self, proc_info):
        """All leave with code 0."""
        assertExitCodes(proc_info)

    def test_no_traceback(self, proc_output):
        """The log has no traceback."""
        for output in proc_output:
            self.assertNotIn('Traceback', output.text.decode())
