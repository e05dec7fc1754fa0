# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Processes of a benchmark end with it, wherever a signal interrupts it."""

from pathlib import Path
import signal
import subprocess
import sys
from threading import Thread

import pytest
from slice_ros.bench.processes import uninterrupted

# A program that starts another one and is interrupted at `place`. It prints the other's id.
PROGRAM = """
import os, signal, subprocess, sys
from slice_ros.bench.processes import end_as_interrupted, Process
signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background ignores it
end_as_interrupted()
number, place = int(sys.argv[1]), sys.argv[2]
start = subprocess.Popen

def interrupted(*arguments, **options):
    process = start(*arguments, **options)
    print(process.pid, flush=True)
    if place == 'start':
        os.kill(os.getpid(), number)
    return process

subprocess.Popen = interrupted
process = Process('timeit', '-n1', '-r1', 'import time; time.sleep(60)')
assert place == 'use'
os.kill(os.getpid(), number)
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('place', ['start', 'use'])
def test_no_process_is_left_wherever_a_signal_comes(number, place):
    done = subprocess.run([sys.executable, '-c', PROGRAM, str(int(number)), place],
                          capture_output=True, text=True, timeout=60)
    assert 'KeyboardInterrupt' in done.stderr and 'AssertionError' not in done.stderr
    assert not Path(f'/proc/{int(done.stdout)}').exists()


def test_a_signal_that_waited_comes_once_and_the_handlers_are_as_before():
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append('ours'))
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert came == []
        assert came == ['ours']
        signal.raise_signal(signal.SIGTERM)
        assert came == ['ours', 'ours']
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_gets_no_signals_and_changes_no_handlers():
    seen = []

    def body():
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGTERM))
    thread = Thread(target=body)
    thread.start()
    thread.join(10)
    assert seen == [signal.getsignal(signal.SIGTERM)]
