# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A second node of the same name: callers get two answers, so both nodes warn."""

import math
import time

from conftest import wait_until
from rclpy.parameter import Parameter
from slice_ros.ros import status
from slice_ros.ros.node import SliceNode

WARNING = 'another node is called /twins/slice too'
PERIOD = 0.2   # seconds between two reports, at which it looks


def idle():
    return SliceNode(namespace='twins', parameter_overrides=[
        Parameter('autostart', value=False), Parameter('status.period_s', value=PERIOD)])


def test_each_warns_once_of_another_that_stays(ros, spin, capfd, monkeypatch):
    monkeypatch.setattr(status, 'NAMESAKE_S', 3 * PERIOD)
    logged = ''

    def warnings():
        nonlocal logged
        logged += ''.join(capfd.readouterr())
        return logged.count(WARNING)
    first = idle()
    spinning = spin(first)
    time.sleep(6 * PERIOD)
    assert warnings() == 0
    second = idle()
    both = spin(second)
    wait_until(lambda: warnings() == 2)
    time.sleep(6 * PERIOD)
    assert warnings() == 2
    both.close()
    second.destroy_node()
    wait_until(lambda: first.count_publishers('/twins/slice/scheduler_state') == 1)
    wait_until(lambda: first.status._alone_at < math.inf)   # it has seen that it is alone
    second = idle()
    wait_until(lambda: warnings() == 3)   # only the first one is spun
    second.destroy_node()
    spinning.close()
    first.destroy_node()
