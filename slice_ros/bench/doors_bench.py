# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench doors``: control goals beside dialogues by HTTP and questions about a camera.

Node and gateway run in processes of their own. Control is sent by the action, first alone, then
while all dialogues stream through the gateway and each new frame is a question of its own. Without
a model: random weights in the shape of SmolVLM-256M, whose times are those of real ones.
"""

from argparse import ArgumentParser, Namespace
import asyncio
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from io import BytesIO
from itertools import count
import json
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
import threading

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from slice_ros.bench.gateway_bench import port_of, spun_client, wait_until_ready
from slice_ros.bench.images_bench import write_random
from slice_ros.bench.processes import end_as_interrupted, NodeProcess, own_domain, Process
from slice_ros.bench.progress import parts
from slice_ros.serving.stats import percentile

BAR_PERCENT = 95.0      # of the control goals beside the load that attain
ALONE = 20              # control goals before the load
EVERY_S = 1.0           # between two control goals
CONTROL = 'A box is 0.4 m ahead. Stop or go? Case'
TALK = 'Tell me about the warehouse. Visitor'
LOOK = 'Is the way free?'
TOKENS = {'control': 8, 'dialogue': 64, 'navigation': 8}
FRAME = (240, 320)      # rows and columns of a camera's image
BLOCK = 20              # pixels of one colour in it, each way
ANSWER_WITHIN = 120.0   # seconds after which a caller gives up
SETTLE_S = 2.0          # of load before control is sent


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench doors``."""
    parser.add_argument('--goals', type=int, default=100, help='control goals beside the load '
                        '(default: %(default)s)')
    parser.add_argument('--dialogues', type=int, default=12, help='that stream by HTTP at once '
                        '(default: %(default)s)')
    parser.add_argument('--images', type=float, default=4.0, help='frames a second that are asked '
                        'about; 0: none (default: %(default)s)')
    parser.add_argument('--model', default='', help='directory of a model that sees; random '
                        'weights in the shape of SmolVLM-256M if not given')
    parser.add_argument('--json', type=Path, metavar='OUT', help='file to write the figures to')


def run(args: Namespace) -> int:
    """Run ``slice_bench doors``; return 1 where the bar is missed.

    Raises ``ValueError`` for a flag out of range, and when the node does not serve.
    """
    if not 1 <= args.goals < 1e5 or not 0 <= args.dialogues <= 64 or not 0 <= args.images <= 100:
        raise ValueError('--goals must be 1 to 99999, --dialogues 0 to 64, --images 0 to 100')
    own_domain()
    end_as_interrupted()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with TemporaryDirectory() as folder, parts(console) as part:
        with part('writing the model'):
            model = args.model or str(write_random(Path(folder)))
        with spun_client() as client, NodeProcess([f'engine.model:={model}']) as node, Process(
                'slice_ros.gateway.gateway_program', '--port', '0') as gateway:
            with part('starting the node'):
                asyncio.run(wait_until_ready(client, node))
                port = port_of(gateway)
            figures = asyncio.run(_measure(args, client, port, part))
    figures |= {'goals': args.goals, 'dialogues': args.dialogues, 'images_per_s': args.images,
                'model': args.model}
    console.print(table(figures))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + '\n')
    return int(figures['control']['attained_percent'] < BAR_PERCENT)


async def _measure(args: Namespace, client, port: int, part) -> dict:
    with part('control alone', ALONE) as advance:
        alone = await _control(client, ALONE, advance)
    stop, talked, looked = threading.Event(), Counter(), Counter()
    talks = [asyncio.create_task(asyncio.to_thread(_talk, port, number, stop, talked))
             for number in range(args.dialogues)]
    looks = asyncio.create_task(_look(client, args.images, looked))
    try:
        await asyncio.sleep(SETTLE_S)
        with part('control beside the load', args.goals) as advance:
            control = await _control(client, args.goals, advance)
    finally:
        stop.set()
        looks.cancel()
        with suppress(asyncio.CancelledError):
            await looks
        await asyncio.gather(*talks)
    return {'alone': _figures(alone), 'control': _figures(control),
            'dialogue_answers': dict(talked), 'image_answers': dict(looked)}


async def _control(client, goals: int, advance) -> list:
    """Send control goals, one a second whatever comes of them; return their reports, or None."""
    from slice_ros.client import SliceError

    ended = count(1)

    async def ask(number: int):
        try:
            answer = await client.ask(f'{CONTROL} {number}.', 'control', timeout=ANSWER_WITHIN,
                                      max_tokens=TOKENS['control'])
            return answer.report
        except SliceError:
            return None
        finally:
            advance(next(ended))
    tasks = []
    for number in range(goals):
        tasks.append(asyncio.create_task(ask(number)))
        await asyncio.sleep(EVERY_S)
    return await asyncio.gather(*tasks)


def _talk(port: int, number: int, stop: threading.Event, outcomes: Counter) -> None:
    """Stream answers by HTTP, one after the other, until `stop`; count how they ended."""
    turn = 0
    while not stop.is_set():
        turn += 1
        door = HTTPConnection('127.0.0.1', port, timeout=ANSWER_WITHIN)
        try:
            door.request('POST', '/v1/chat/completions', json.dumps({
                'model': 'slice/dialogue', 'stream': True, 'max_tokens': TOKENS['dialogue'],
                'messages': [{'role': 'user', 'content': f'{TALK} {number}, turn {turn}.'}]}),
                {'content-type': 'application/json'})
            response = door.getresponse()
            while not stop.is_set() and response.readline():
                pass
            if not stop.is_set():
                outcomes['whole' if response.status == 200 else str(response.status)] += 1
        except (OSError, HTTPException) as error:
            outcomes[type(error).__name__] += 1
        finally:
            door.close()


async def _look(client, rate: float, outcomes: Counter) -> None:
    """Ask about `rate` new frames a second, until this is cancelled; count how that ended."""
    from slice_ros.client import SliceError
    dice, asked = np.random.default_rng(1), set()

    async def ask(frame: bytes) -> None:
        try:
            await client.ask([{'role': 'user', 'content': LOOK, 'images': [frame]}], 'navigation',
                             timeout=ANSWER_WITHIN, max_tokens=TOKENS['navigation'])
            outcomes['whole'] += 1
        except SliceError as error:
            outcomes[type(error).__name__] += 1
    try:
        while rate:
            task = asyncio.create_task(ask(_frame(dice)))
            asked.add(task)
            task.add_done_callback(asked.discard)
            await asyncio.sleep(1.0 / rate)
    finally:
        outcomes['unanswered at the end'] += len(asked)
        for task in asked:
            task.cancel()


def _frame(dice: np.random.Generator) -> bytes:
    """Return an image that has not been seen before, as JPEG."""
    colours = dice.integers(0, 255, (FRAME[0] // BLOCK, FRAME[1] // BLOCK, 3), np.uint8)
    data = BytesIO()
    Image.fromarray(np.kron(colours, np.ones((BLOCK, BLOCK, 1), np.uint8))).save(data, 'JPEG')
    return data.getvalue()


def _figures(reports: list) -> dict[str, float]:
    """Return how many of the control goals attained, and percentiles of their times."""
    served = [report for report in reports if report is not None]
    figures = {'attained_percent': 100 * sum(r.attained for r in served) / len(reports),
               'refused': len(reports) - len(served)}
    for name in ('ttft_ms', 'completion_ms'):
        times = [getattr(report, name) for report in served]
        for label, share in (('p50', 0.5), ('p99', 0.99)):
            figures[f'{name[:-3]}_{label}_ms'] = percentile(times, share)
    return figures


def table(figures: dict) -> Table:
    """Return the figures beside the bar."""
    shown = Table('control', 'attained', 'first token p50, p99', 'whole answer p50, p99', 'bar')
    for name, title in (('alone', 'alone'), ('control', 'beside the load')):
        row = figures[name]
        kept = row['attained_percent'] >= BAR_PERCENT
        shown.add_row(
            title, f'{row["attained_percent"]:.1f} %',
            *(f'{row[f"{what}_p50_ms"]:.0f}, {row[f"{what}_p99_ms"]:.0f} ms'
              for what in ('ttft', 'completion')),
            f'{BAR_PERCENT:g} %: {"kept" if kept else "MISSED"}' if name == 'control' else '')
    for name, title in (('dialogue_answers', 'dialogues by HTTP'),
                        ('image_answers', 'questions about frames')):
        shown.add_row(title, ', '.join(f'{count} {how}' for how, count in figures[name].items()))
    return shown
