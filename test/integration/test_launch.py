"""The launch file, run by launch_testing: it serves under its name and ends cleanly."""

import os
from pathlib import Path
import unittest

import pytest

launch_testing = pytest.importorskip(
    'launch_testing', reason='needs the ROS 2 launch stack: launch_testing is not installed')

from launch import LaunchDescription  # noqa: E402,I100
from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_testing.actions import ReadyToTest  # noqa: E402
from launch_testing.asserts import assertExitCodes  # noqa: E402
from launch_testing.markers import keep_alive  # noqa: E402
from serving_checks import check_one_answer, Client  # noqa: E402

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'slice.launch.py'


@pytest.mark.launch
@pytest.mark.launch_test
@keep_alive
def generate_test_description():
    """Launch the server in a namespace; the tests start at once and wait for it themselves."""
    os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
    return LaunchDescription([
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(LAUNCH_FILE)),
            launch_arguments={'namespace': 'robot', 'log_level': 'info'}.items()),
        ReadyToTest(),
    ])


class TestServing(unittest.TestCase):
    """While the node is up."""

    def test_one_answer(self):
        """A goal is answered and its tokens are on the topic of its class."""
        client = Client('/robot/slice')
        try:
            check_one_answer(client)
        finally:
            client.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """After launch has told the node to stop."""

    def test_exit_code(self, proc_info):
        """The node leaves with code 0."""
        assertExitCodes(proc_info)
