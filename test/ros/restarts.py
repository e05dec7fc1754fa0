# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Measures starts of the node with preambles on disk and without: python test/ros/restarts.py.

Each start is a process of its own; all share a cache folder that is empty at first. Prints a line
for each: the tokens of its preambles that came from disk and that were computed, the seconds from
activate to ready, those of processor time in between, which other processes disturb less, and the
milliseconds to the first token of the first control request. Then the processor time of the thread
of the steps for one piece of a copy. Arguments: the rooms of the long preamble, and how often
pieces are timed.
"""

import json
import os
from pathlib import Path
import random
import re
from statistics import median
import subprocess
import sys
from tempfile import TemporaryDirectory
import threading
import time
from typing import NamedTuple

from first_requests import PREAMBLES, with_client
import yaml

LONG, TURNS = 100, 5
BEGINS, READY = 'computing what requests begin with', 'ready: requests are served'
TOKENS = re.compile(r'preambles: (\d+) tokens came from disk in \d+ ms, (\d+) were computed')
STAMP = re.compile(r'\[(\d+\.\d+)\]')


class Start(NamedTuple):
    """What one start of the node was like."""

    disk: int         # tokens of preambles
    computed: int
    ready_s: float    # from activate to ready
    cpu_s: float      # of all threads of the node meanwhile
    ttft_ms: float    # of the first control request
    text: str         # its answer
    logprobs: list    # of the tokens of the answer, and of the two likeliest at each place
    log: str


def start(preambles: dict[str, list], cache: str, **engine) -> Start:
    """Start a node, ask it once, and end it."""
    values = {f'slo.{name}.preamble': json.dumps(messages)
              for name, messages in preambles.items()}
    values |= {f'engine.{name}': value for name, value in engine.items()}
    file = Path(cache) / 'parameters.yaml'
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    lines, ready, spent = [], threading.Event(), {}
    node = subprocess.Popen(
        [sys.executable, '-m', 'slice_ros.ros.main', '--ros-args', '--params-file', str(file)],
        stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'XDG_CACHE_HOME': cache, 'RCUTILS_LOGGING_BUFFERED_STREAM': '0'})

    def read() -> None:
        for line in node.stdout:
            lines.append(line)
            spent.update({what: _cpu_s(node.pid) for what in (BEGINS, READY) if what in line})
            if READY in line:
                ready.set()
        ready.set()
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(300) and node.poll() is None, ''.join(lines)
        answer = with_client(lambda client: _ask(client, preambles['control']))
        if engine.get('prefix_cache_bytes') != 0:
            _wait_for_files(Path(cache), len(preambles))
    finally:
        node.terminate()
        node.wait(60)
        reader.join(60)
    log = ''.join(lines)
    counts = [tuple(map(int, found)) for found in TOKENS.findall(log)]
    return Start(sum(disk for disk, _ in counts), sum(computed for _, computed in counts),
                 _time_of(READY, lines) - _time_of(BEGINS, lines),
                 spent[READY] - spent[BEGINS], answer.report.ttft_ms,
                 answer.text, [one.logprob for one in answer.logprobs], log)


async def _ask(client, messages: list):
    await client.wait_until_ready(60)
    return await client.ask([*messages, {'role': 'user', 'content': 'A wall is ahead.'}],
                            'control', max_tokens=8, sampling={'logprobs': True})


def _wait_for_files(cache: Path, count: int) -> None:
    """Wait until so many preambles are on disk: they are written while the node serves."""
    end = time.monotonic() + 60
    while len(list(cache.rglob('*.prefix'))) < count:
        assert time.monotonic() < end, 'not all preambles are stored'
        time.sleep(0.05)


def _cpu_s(process: int) -> float:
    fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _time_of(what: str, lines: list[str]) -> float:
    return next(float(STAMP.search(line)[1]) for line in lines if what in line)


def long_preamble(rooms: int) -> list[dict[str, str]]:
    """Return the messages of a robot that knows so many rooms."""
    places = '. '.join(f'Room {number} is on floor {number // 10}' for number in range(rooms))
    return [{'role': 'system', 'content': f'Decide for a robot: STOP, SLOW or GO. {places}.'}]


def pauses(turns: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each piece that is copied out of the KV cache, and into it."""
    from slice_ros.engine import EngineConfig, load_engine
    from slice_ros.engine.kv.slot_memory import pieces
    from slice_ros.engine.pinned_prefixes import PinnedPrefixes
    out, back = [], []
    with TemporaryDirectory() as cache:
        engine = load_engine(EngineConfig(prefix_cache=cache, prefix_cache_bytes=1 << 29))
        tokens = [(7 * number) % 2500 + 20 for number in range(500)]
        pinned = PinnedPrefixes(engine, [tokens])
        while not engine.pinned(tokens):
            pinned.compute(64)
            pinned.wait_for_disk(1)
        while pinned.compute(64):
            pass
        pinned._writing.result()
        count = len(list(pieces(engine._runner.memory, len(tokens))))
        for _ in range(turns):
            while engine._slots._kept:
                engine._slots._drop()
            for times, work in ((back, engine.stored.restore), (out, engine.stored.store)):
                moving = work(tokens)
                if times is back:
                    next(moving).result()
                for _ in range(count):
                    began = time.thread_time()
                    next(moving)
                    times.append(1e3 * (time.thread_time() - began))
                for written in moving:
                    if written is not None:
                        written.result()
    return out, back


def main() -> None:
    """Print the table."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randrange(10, 100)))
    given = dict(enumerate(map(int, sys.argv[1:])))
    rooms, turns = given.get(0, LONG), given.get(1, TURNS)
    for name, preambles in (('short', PREAMBLES), ('long', PREAMBLES | {
            'control': long_preamble(rooms)})):
        print(f'{name:8}{"from disk":>12}{"computed":>12}{"ready s":>10}{"cpu s":>10}'
              f'{"TTFT ms":>10}')
        with TemporaryDirectory() as cache:
            for turn, most in (('first', 1 << 29), ('again', 1 << 29), ('without', 0)):
                of = start(preambles, cache, prefix_cache_bytes=most)
                print(f'{turn:8}{of.disk:12}{of.computed:12}{of.ready_s:10.2f}'
                      f'{of.cpu_s:10.2f}{of.ttft_ms:10.1f}',
                      flush=True)
    for what, times in zip(('out of', 'into'), pauses(turns)):
        times.sort()
        print(f'a piece copied {what} the KV cache: {median(times):.2f} ms, 99 in 100 within '
              f'{times[int(0.99 * len(times))]:.2f} ms, longest {times[-1]:.2f} ms')


if __name__ == '__main__':
    main()
