# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Refused goals of megabytes leave no memory behind in the process of the node."""

import itertools
import resource
import signal
import subprocess
import sys
import time

from conftest import Caller, Spinning
import rclpy
from slice_ros.action import Generate

GOALS = 192
MEGABYTES = 'x' * 1_000_000
FIELDS = ({'slo_class': MEGABYTES}, {'session_id': MEGABYTES}, {'prompt': MEGABYTES},
          {'stop': [MEGABYTES]})
BOUND = 50e6   # bytes; a node that kept one goal in four would grow by as much


def resident(process):
    with open(f'/proc/{process.pid}/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_refused_goals_of_megabytes_leave_the_resident_set_as_it_was():
    process = subprocess.Popen([sys.executable, '-m', 'slice_ros.ros.main', '--ros-args',
                                '-p', 'autostart:=false', '-r', '__node:=refusing'])
    # A participant of its own, and another name: earlier tests may be discovered still.
    context = rclpy.Context()
    rclpy.init(context=context)
    caller = Caller('/refusing', context=context)
    spinning = Spinning(caller)
    try:
        assert caller.generate.wait_for_server(60)
        assert caller.ask(prompt='Hi')[1].error_code == Generate.Result.NOT_READY
        before = resident(process)
        for fields in itertools.islice(itertools.cycle(FIELDS), GOALS):
            result = caller.ask(**{'prompt': 'Hi', **fields})[1]
            assert result.error_code and len(result.error_msg) < 600
        time.sleep(0.5)
        assert resident(process) - before < BOUND
    finally:
        spinning.close()
        caller.destroy_node()
        context.shutdown()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
