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
from slice_ros.action import Generate

GOALS = 24
MEGABYTES = 'x' * 8_000_000
FIELDS = ({'slo_class': MEGABYTES}, {'session_id': MEGABYTES}, {'prompt': MEGABYTES},
          {'stop': [MEGABYTES]})
BOUND = 50e6   # bytes; a node that kept one goal in four would grow by as much


def resident(process):
    with open(f'/proc/{process.pid}/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_refused_goals_of_8_mb_leave_the_resident_set_as_it_was(ros):
    process = subprocess.Popen([sys.executable, '-m', 'slice_ros.ros.main', '--ros-args',
                                '-p', 'autostart:=false', '-r', '__node:=refusing'])
    # By another name: a node of the tests before may be discovered still.
    caller = Caller('/refusing')
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
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
