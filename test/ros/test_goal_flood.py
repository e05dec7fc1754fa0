# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Hundreds of goals of many callers at once: each caller receives each of its answers.

Every client of a service receives the answers to all its clients, and keeps the newest ones only.
"""

import os
from pathlib import Path
import signal
import subprocess
import sys

HERE = {**os.environ, 'PYTHONPATH': os.getcwd()}   # as `python -m` does for the node
FLOOD = Path(__file__).with_name('goal_flood.py')
CALLERS, GOALS, OPEN = 6, 150, 75


def test_each_of_many_callers_receives_all_its_answers(ros):
    # Not configured: it answers at once, with a code and a sentence.
    node = subprocess.Popen([sys.executable, '-m', 'slice_ros.ros.main', '--ros-args',
                             '-p', 'autostart:=false', '-r', '__node:=flooded'],
                            stderr=subprocess.DEVNULL)
    flood = [sys.executable, FLOOD, '/flooded/generate', str(GOALS), str(OPEN)]
    callers = [subprocess.Popen(flood, env=HERE, stdout=subprocess.PIPE, text=True)
               for _ in range(CALLERS)]
    try:
        received = [int(caller.communicate(timeout=100)[0]) for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
        node.send_signal(signal.SIGINT)
        assert node.wait(60) == 0
    assert received == [GOALS] * CALLERS
