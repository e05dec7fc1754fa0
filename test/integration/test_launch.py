# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The launch file, run by launch_testing: the checks that `test_serving.py` runs without it.

With pytest (older than 9, which the plugin of launch_testing does not know) or `launch_test`.
"""

import os
from pathlib import Path
import signal
import sys
import unittest

import pytest

launch_testing = pytest.importorskip(
    'launch_testing', reason='needs the ROS 2 launch stack: launch_testing is not installed')

from launch import LaunchDescription  # noqa: E402,I100
from launch.actions import IncludeLaunchDescription, RegisterEventHandler  # noqa: E402
from launch.event_handlers import OnProcessStart  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_testing.actions import ReadyToTest  # noqa: E402
from launch_testing.asserts import assertExitCodes  # noqa: E402
from launch_testing.markers import keep_alive  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))  # `launch_test` does not do it
from robot import Robot  # noqa: E402
import serving_checks  # noqa: E402

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'slice.launch.py'
STARTED = {}   # namespace -> process id of the node that was last started there


def _note(event, context):
    for side in ('left', 'right'):
        if any(f'/{side}' in word for word in event.cmd):
            STARTED[side] = event.pid


@pytest.mark.launch
@pytest.mark.launch_test
@keep_alive
def generate_test_description():
    """Launch two servers; the tests start at once and wait for them themselves."""
    os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
    return LaunchDescription([
        RegisterEventHandler(OnProcessStart(on_start=_note)),
        *(IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(LAUNCH_FILE)),
            launch_arguments={'namespace': side, 'respawn': respawn}.items())
            for side, respawn in (('left', 'false'), ('right', 'true'))),
        ReadyToTest(),
    ])


class TestServing(unittest.TestCase):
    """While the nodes are up."""

    @classmethod
    def setUpClass(cls):
        """Join the graph twice."""
        cls.left, cls.right = Robot('/left/slice'), Robot('/right/slice')

    @classmethod
    def tearDownClass(cls):
        """Leave it."""
        cls.left.close()
        cls.right.close()

    def test_1_one_node(self):
        """Every check of one node."""
        for check in serving_checks.CHECKS:
            with self.subTest(check.__name__):
                check(self.left)

    def test_2_side_by_side(self):
        """What is done to one is not done to the other."""
        serving_checks.check_side_by_side(self.left, self.right)

    def test_3_respawn_while_a_client_waits(self):
        """Launch starts the node again, and the same client is served."""
        before = STARTED['right']
        serving_checks.check_respawn_while_a_client_waits(
            self.right, lambda: os.kill(before, signal.SIGKILL))
        self.assertNotEqual(STARTED['right'], before)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """After launch has stopped the nodes."""

    def test_exit_code(self, proc_info):
        """Both leave with code 0."""
        assertExitCodes(proc_info)

    def test_no_traceback(self, proc_output):
        """The log has no traceback."""
        for output in proc_output:
            self.assertNotIn('Traceback', output.text.decode())
