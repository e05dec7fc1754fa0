# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench gateway``: how much later a text comes through slice_gateway than by the action.

The node and the gateway run in processes of their own, this one is the caller of both. It asks
by turns, so that whatever else the machine does falls on both alike.
"""

from argparse import ArgumentParser, Namespace
import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
import json
from pathlib import Path
import re
import threading
import time

from rich.console import Console
from rich.table import Table
from slice_ros.bench.processes import NodeProcess, own_domain, Process
from slice_ros.bench.progress import parts
from slice_ros.serving.stats import percentile

READY_WITHIN = 300.0   # seconds; the first start on a machine profiles the model
LISTENS_WITHIN = 30.0  # seconds
BAR_MS = 5.0           # median first token through the gateway after the one by the action
WARM_UP = 5            # pairs that do not count
MAX_TOKENS = 8
PERCENTILES = (('p10', 0.1), ('p50', 0.5), ('p90', 0.9))   # p10: little else was running
PROMPT = 'An obstacle is two metres ahead. Answer with one word: stop or go? Case'


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench gateway``."""
    parser.add_argument('--requests', type=int, default=200,
                        help='requests each way (default: %(default)s)')
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Run ``slice_bench gateway``; return 1 where the bar is missed.

    Raises ``ValueError`` for a flag out of range, and when the node does not serve.
    """
    if not 1 <= args.requests < 1e6:
        raise ValueError('--requests must be at least 1')
    own_domain()
    console = Console()
    options = [f'engine.model:={args.model}'] if args.model else []
    with parts(console) as part, spun_client() as client:
        with part('starting the node'), NodeProcess(options) as node, Process(
                'slice_ros.gateway.gateway_program', '--port', '0') as gateway:
            asyncio.run(wait_until_ready(client, node))
            port = port_of(gateway)
            with part('asking by turns', args.requests) as advance:
                ways = {'action': lambda prompt: asyncio.run(_by_action(client, prompt)),
                        'gateway': lambda prompt: _by_http(port, prompt)}
                taken = {way: [] for way in ways}
                for number in range(args.requests + WARM_UP):
                    # Two prompts: of the same one the second way would find all in the cache.
                    for i, way in enumerate(sorted(ways, reverse=number % 2 > 0)):
                        taken[way].append(ways[way](f'{PROMPT} {1000 + 2 * number + i}.'))
                    advance(max(0, number + 1 - WARM_UP))
    result = {'requests': args.requests, **_figures(
        {way: list(zip(*times[WARM_UP:])) for way, times in taken.items()})}
    console.print(table(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    return int(result['first']['later_p50_ms'] > BAR_MS)


@contextmanager
def spun_client() -> Iterator:
    """Yield a client of the node, spun by a thread."""
    import rclpy
    from rclpy.executors import ShutdownException, SingleThreadedExecutor
    from slice_ros.client import SliceClient
    rclpy.init()
    node = rclpy.create_node('slice_bench')
    client, executor = SliceClient(node), SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ShutdownException:
            pass
    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield client
    finally:
        client.close()
        executor.shutdown()
        thread.join(5.0)
        node.destroy_node()
        rclpy.shutdown()


async def wait_until_ready(client, node: NodeProcess) -> None:
    """Return once the node serves. Raises ``ValueError`` when it does not."""
    from slice_ros.client import Unavailable
    try:
        await client.wait_until_ready(READY_WITHIN)
    except Unavailable as error:
        raise ValueError(f'{error}: {node.end_of_log()}') from error


def port_of(gateway: Process) -> int:
    """Return the port that a gateway listens at. Raises ``ValueError`` when it does not."""
    end = time.monotonic() + LISTENS_WITHIN
    while time.monotonic() < end and gateway.alive:
        listening = re.search(r' at http://\S+:(\d+)', gateway.log())
        if listening:
            return int(listening[1])
        time.sleep(0.1)
    raise ValueError(f'the gateway does not listen: {gateway.end_of_log()}')


async def _by_action(client, prompt: str) -> tuple[float, float]:
    """Return the seconds to the first piece of an answer, and to its end."""
    begun = time.monotonic()
    first = None
    async for _ in client.generate(prompt, 'control', max_tokens=MAX_TOKENS):
        first = first or time.monotonic() - begun
    return first or time.monotonic() - begun, time.monotonic() - begun


def _by_http(port: int, prompt: str) -> tuple[float, float]:
    """Return the same through the gateway, connected before. Raises ``ValueError`` for errors."""
    door = HTTPConnection('127.0.0.1', port, timeout=60)
    door.connect()
    begun = time.monotonic()
    door.request('POST', '/v1/chat/completions', json.dumps({
        'model': 'slice/control', 'stream': True, 'max_tokens': MAX_TOKENS,
        'messages': [{'role': 'user', 'content': prompt}]}), {'content-type': 'application/json'})
    response = door.getresponse()
    if response.status != 200:
        raise ValueError(f'the gateway answers {response.status}: {response.read()!r:.300}')
    response.readline()
    first = time.monotonic() - begun
    response.read()
    took = time.monotonic() - begun
    door.close()
    return first, took


def _figures(taken: dict[str, list[tuple[float, ...]]]) -> dict[str, dict[str, float]]:
    """Return percentiles of the seconds by each way, and how far apart they are."""
    result = {}
    for number, name in enumerate(('first', 'whole')):
        figures = result[name] = {}
        for label, share in PERCENTILES:
            for way, times in taken.items():
                figures[f'{way}_{label}_ms'] = percentile(times[number], share) * 1e3
            figures[f'later_{label}_ms'] = (figures[f'gateway_{label}_ms']
                                            - figures[f'action_{label}_ms'])
    return result


def table(result: dict) -> Table:
    """Return the figures beside the bar."""
    shown = Table('', 'by the action', 'through the gateway', 'later', 'bar')
    for name, title in (('first', 'first text'), ('whole', f'{MAX_TOKENS} tokens')):
        for label, _ in PERCENTILES:
            row = [f'{result[name][f"{way}_{label}_ms"]:.1f} ms'
                   for way in ('action', 'gateway', 'later')]
            bar = ''
            if (name, label) == ('first', 'p50'):
                kept = result[name]['later_p50_ms'] <= BAR_MS
                bar = f'{BAR_MS:g} ms: {"kept" if kept else "MISSED"}'
            shown.add_row(f'{title}, {label}', *row, bar)
    return shown
