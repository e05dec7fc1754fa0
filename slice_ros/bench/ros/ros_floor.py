# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The delay between a bare publisher and a bare subscriber: the floor of ``slice_bench ros``.

The caller is the subscriber. This module, run as a program, is the publisher: it sends as many
messages at a time as a step has tokens, with no node, engine or scheduler around them.
"""

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
import os
import subprocess
import sys
import time

from slice_ros.bench.processes import uninterrupted
from slice_ros.bench.ros.ros_caller import Caller, FLOOR
from slice_ros.serving.stats import percentile

PERIOD = 0.05   # seconds from burst to burst
ID = 'floor {}'


def floor(caller: Caller, streams: int, seconds: float) -> dict[str, float]:
    """Measure bursts of `streams` messages, with the cores idle and with a busy loop on each.

    Raises ``ValueError`` when none of them is received.
    """
    result = {}
    for name, loops in (('idle', 0), ('busy', len(os.sched_getaffinity(0)))):
        with _busy(loops):
            subprocess.run([sys.executable, '-m', __name__, str(streams), str(seconds)],
                           timeout=seconds + 60)
        delays = [token.delay for i in range(streams)
                  for token in caller.tokens.pop(ID.format(i), ())]
        if not delays:
            raise ValueError('no message of the bare publisher came')
        for share in (50, 99):
            result[f'{name}_p{share}_ms'] = percentile(delays, share / 100) * 1e3
    return result


@contextmanager
def _busy(loops: int) -> Iterator[None]:
    processes = []
    try:
        with uninterrupted():
            for _ in range(loops):
                processes.append(subprocess.Popen([sys.executable, '-c', 'while True: pass']))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def publish(streams: int, seconds: float) -> None:
    """Publish bursts; the stamp of each message is when its burst began."""
    import rclpy
    from rclpy.duration import Duration
    from slice_ros.msg import TokenChunk
    from slice_ros.ros.qos import TOKENS
    rclpy.init()
    node = rclpy.create_node('slice_bench_floor', enable_rosout=False,
                             start_parameter_services=False)
    publisher = node.create_publisher(TokenChunk, FLOOR, TOKENS)
    chunks = [TokenChunk(request_id=ID.format(i), text=' word') for i in range(streams)]
    patience = time.monotonic() + 30
    while not publisher.get_subscription_count() and time.monotonic() < patience:
        time.sleep(0.01)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(PERIOD)
        stamp = divmod(time.time_ns(), 10**9)
        for chunk in chunks:
            chunk.stamp.sec, chunk.stamp.nanosec = stamp
            publisher.publish(chunk)
            chunk.sequence += 1
    publisher.wait_for_all_acked(Duration(seconds=5))
    rclpy.shutdown()


if __name__ == '__main__':
    parser = ArgumentParser()
    parser.add_argument('streams', type=int)
    parser.add_argument('seconds', type=float)
    publish(**vars(parser.parse_args()))
