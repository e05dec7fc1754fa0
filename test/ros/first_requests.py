# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Measures the first request of each class against its tenth: python test/ros/first_requests.py.

A node in a process of its own, with a preamble for each class; requests one after the other, free
text and in a format. Prints one line for each, in milliseconds to the first token.
"""

import asyncio
import json
import os
import random
from string import ascii_letters
import subprocess
import sys
import tempfile
import threading

import yaml

REQUESTS = 10
PREAMBLES = {
    'control': [
        {'role': 'system', 'content': 'Decide for a robot: STOP (blocked or danger), SLOW (people '
         'near, slippery) or GO (free way).'},
        {'role': 'user', 'content': 'Way free.'},
        {'role': 'assistant', 'content': 'GO, the way is free.'},
        {'role': 'user', 'content': 'Box 0.5 m ahead.'},
        {'role': 'assistant', 'content': 'STOP, a box blocks the way.'}],
    'navigation': [
        {'role': 'system', 'content': 'You guide a delivery robot through a building. The lift is '
         'at the end of corridor A. The kitchen is on floor 2, to the left of the lift. The lab '
         'is on floor 3, to the right of the lift. Answer in two short sentences.'}],
    'dialogue': [
        {'role': 'system', 'content': 'You are Pico, a friendly delivery robot in an office. You '
         'carry parcels and coffee, you know every room, and you never hurry. Answer in a few '
         'sentences.'}]}
FORMATS = {
    'plain': {}, 'choice': {'choice': ['STOP', 'SLOW', 'GO']},
    'schema': {'schema': {'type': 'object', 'properties': {
        'place': {'type': 'string', 'maxLength': 20}, 'metres': {'type': 'integer'}}}}}


def parameters(preambles: bool) -> dict:
    """Return the parameters of the node, with or without the preambles."""
    classes = {name: {'preamble': json.dumps(messages)} for name, messages in PREAMBLES.items()}
    return {'/**': {'ros__parameters': {'slo': classes} if preambles else {'autostart': True}}}


def measure(preambles: bool = True) -> dict[str, list[float]]:
    """Return the milliseconds to the first token of each request, by class and format."""
    with tempfile.NamedTemporaryFile('w', suffix='.yaml') as file:
        yaml.safe_dump(parameters(preambles), file)
        file.flush()
        node = subprocess.Popen([sys.executable, '-m', 'slice_ros.ros.main', '--ros-args',
                                 '--log-level', 'error', '--params-file', file.name])
        try:
            return with_client(_ask)
        finally:
            node.terminate()
            node.wait(30)


async def _ask(client) -> dict[str, list[float]]:
    from slice_ros.client import FormatIncomplete
    await client.wait_until_ready(300)
    times = {}
    for name, messages in PREAMBLES.items():
        places = iter(ascii_letters)   # begin a text, so that each shares the preamble alone
        for form, options in FORMATS.items():
            ttft = times[f'{name} {form}'] = []
            for _ in range(REQUESTS):
                text = f'{next(places)} has a wall ahead. What now?'
                try:
                    answer = await client.ask([*messages, {'role': 'user', 'content': text}],
                                              name, max_tokens=8, **options)
                except FormatIncomplete as error:
                    answer = error.answer
                ttft.append(answer.report.ttft_ms)
    return times


def with_client(ask):
    """Return what the coroutine function `ask` returns of a client, whose node spins meanwhile."""
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from slice_ros.client import SliceClient
    context = rclpy.Context()
    rclpy.init(context=context)
    planner = rclpy.create_node('first_requests', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(planner)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
    threading.Thread(target=spin, daemon=True).start()
    client = SliceClient(planner)
    try:
        return asyncio.run(ask(client))
    finally:
        client.close()
        executor.shutdown()
        planner.destroy_node()
        context.try_shutdown()


def main() -> None:
    """Print the figures, without preambles where `--cold` is given."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randrange(10, 100)))
    print(f'{"":20}{"first":>8}{"second":>8}{"tenth":>8}  first / tenth')
    for kind, ttft in measure('--cold' not in sys.argv).items():
        print(f'{kind:20}{ttft[0]:8.1f}{ttft[1]:8.1f}{ttft[-1]:8.1f}{ttft[0] / ttft[-1]:8.2f}')


if __name__ == '__main__':
    main()
