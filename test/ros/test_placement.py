# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""CPUs, nice values and real-time priorities of the threads, in a real process of the node."""

import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest
from slice_ros.ros.isolation import placement
from slice_ros.ros.isolation.placement import cpus_from, Placement, PlacementError, try_out

FIFO = 1   # the number of SCHED_FIFO in /proc


def start(*parameters, **options):
    arguments = [word for each in parameters for word in ('-p', each)]
    return subprocess.Popen(
        [sys.executable, '-m', 'slice_ros.ros.main', '--ros-args', *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'RCUTILS_LOGGING_BUFFERED_STREAM': '0'}, **options)


def threads(process: int) -> list[tuple[str, int, int, int]]:
    """Return (CPUs, nice value, policy, real-time priority) of each thread of a process."""
    found = []
    for task in Path(f'/proc/{process}/task').iterdir():
        stat = (task / 'stat').read_text().rpartition(')')[2].split()   # from field 3 on
        allowed = (task / 'status').read_text().partition('Cpus_allowed_list:')[2].split()[0]
        found.append((allowed, int(stat[16]), int(stat[38]), int(stat[37])))
    return found


@pytest.mark.timeout(300)
def test_executor_and_loop_run_as_the_parameters_say():
    """The loop with the kernels' threads on one CPU, the executor with all, each with its nice."""
    cpu = str(max(os.sched_getaffinity(0)))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    executor, loop = min(nice + 1, 18), min(nice + 2, 19)
    process = start(f'threads.executor_nice:={executor}', f'threads.loop_cpus:="{cpu}"',
                    f'threads.loop_nice:={loop}', 'engine.threads:=2')
    try:
        log = []
        for line in process.stdout:
            log.append(line)
            if 'ready:' in line:
                break
        found = threads(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    computing = [each for each in found if each[:2] == (cpu, loop)]
    assert len(computing) >= 2, (found, log)   # the loop and a thread of the kernels
    assert {each[0] for each in found if each[1] != loop} == {'%s' % _all_cpus()}
    assert [each[1] for each in found].count(nice) >= 1   # the main thread
    assert [each[1] for each in found].count(executor) >= 1
    assert process.returncode == 0


def _all_cpus() -> str:
    return Path('/proc/self/status').read_text().partition('Cpus_allowed_list:')[2].split()[0]


@pytest.mark.parametrize('parameter, sentence', [
    ('threads.loop_cpus:="9000"', 'may use the CPUs'),
    ('threads.executor_cpus:=all', "must be CPUs such as 0-3,6, not 'all'"),
    ('threads.loop_nice:=20', 'out of range')])
def test_what_cannot_be_is_refused_with_a_sentence(parameter, sentence):
    process = start(parameter, 'autostart:=false')
    output, _ = process.communicate(timeout=60)
    name = parameter.partition(':')[0]
    assert process.returncode == 2 and sentence in output and name in output, output
    assert 'Traceback' not in output


@pytest.mark.parametrize('parameter, right', [
    ('threads.loop_priority:=10', 'ulimit -r'), ('threads.executor_nice:=-5', 'ulimit -e')])
def test_what_is_not_permitted_is_refused_with_the_right_that_is_missing(parameter, right):
    """In a process without the right; whoever may give it up has it."""
    if os.getuid():
        command = []
    else:
        command = ['setpriv', '--bounding-set=-sys_nice', '--inh-caps=-sys_nice']
    done = subprocess.run(
        [*command, sys.executable, '-m', 'slice_ros.ros.main', '--ros-args', '-p', parameter,
         '-p', 'autostart:=false'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and 'is not permitted' in done.stderr, done.stderr
    assert right in done.stderr and 'Traceback' not in done.stderr


def test_a_real_time_priority_is_the_threads_own():
    """Where it is permitted; the thread that tries it out is not the calling one."""
    seen = []
    try:
        try_out(Placement('loop', priority=7))
    except PlacementError as error:
        pytest.skip(f'not permitted here: {error}')
    real, placement.place = placement.place, lambda each: (
        real(each), seen.append((os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)))
    try:
        try_out(Placement('executor'), Placement('loop', priority=7), Placement('loop'))
    finally:
        placement.place = real
    assert seen == [(os.SCHED_OTHER, 0), (FIFO, 7), (os.SCHED_OTHER, 0)]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_lists_of_cpus():
    assert cpus_from('0-3,6') == {0, 1, 2, 3, 6} and cpus_from('') == frozenset()
    for wrong in ('a', '1-', ',1', '1;2', '0x3', '-1'):
        with pytest.raises(ValueError, match='such as 0-3,6'):
            cpus_from(wrong)
