# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench soak``: thousands of mixed requests over real topics, with cancels and kills.

The node and four clients run in processes of their own, which ``kill -9`` ends and this one
starts again. What is under way at such a kill is counted apart.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict
import json
from pathlib import Path
from statistics import median
import sys
import tempfile
import time

from rich.console import Console
from rich.table import Table
from slice_ros.bench.processes import end_as_interrupted, NodeProcess, own_domain, Worker
from slice_ros.bench.progress import parts
from slice_ros.bench.ros.soak_plan import (
    kill_instants, MAX_GROWTH, missed_bars, Tally, warm_and_last)

CLIENTS = 4
QUIET = 20              # requests that give the TTFT without any load
COLD = 5                # more before them, which do not count
READY_WITHIN = 300.0    # seconds; the first start on a machine converts and profiles the model
SAMPLE_EVERY = 0.5      # seconds between two looks at the memory of the node
POLL = 0.05             # seconds between two looks at what the clients report
STOP_WITHIN = 320.0     # seconds for the last answers when the time is up
# Kept results of goals would count as growth for the five minutes for which they are kept. With
# short contexts every page of the KV cache is in use by the end of the warm-up.
OPTIONS = ('limits.result_timeout_s:=10', 'engine.max_context:=512')


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench soak``."""
    parser.add_argument('--goals', type=int, default=10_000, help='requests in all '
                        '(default: %(default)s)')
    parser.add_argument('--concurrent', type=int, default=64, help='requests at the same time '
                        '(default: %(default)s)')
    parser.add_argument('--cancels', type=int, default=1000, help='requests that are cancelled, '
                        'each at a random instant (default: %(default)s)')
    parser.add_argument('--kills', type=int, default=5, help='kills of a client process, and as '
                        'many of the node (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=1, help='(default: %(default)s)')
    parser.add_argument('--tiny', action='store_true', help='serve a tiny random model: volume '
                        'without the time of a real one')
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--minutes', type=float, default=60.0, help='longest time '
                        '(default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='OUT', help='file to write the figures to')


def run(args: Namespace) -> int:
    """Run ``slice_bench soak``; return 1 when a bar is missed.

    Raises ``ValueError`` for a flag out of range, and when the node does not serve.
    """
    for name, low in (('goals', 1), ('concurrent', CLIENTS), ('kills', 0), ('cancels', 0)):
        if not low <= getattr(args, name) <= 1_000_000:
            raise ValueError(f'--{name} must be {low} to 1000000')
    if args.cancels > args.goals:
        raise ValueError('--cancels must not be above --goals')
    if not 0 < args.minutes < 1e6:
        raise ValueError('--minutes must be above 0')
    if args.tiny and args.model:
        raise ValueError('--tiny and --model exclude each other')
    own_domain()
    end_as_interrupted()
    console = Console(width=None if sys.stdout.isatty() else 120)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='slice_bench_') as folder, \
            parts(console) as part:
        model = args.model
        if args.tiny:
            # Imported here: torch takes long to load.
            from slice_ros.bench.engine.tiny_model import write_tiny
            with part('making the tiny model'):
                model = str(write_tiny(Path(folder)))
        with Soak(args, model) as soak:
            with part('a quiet request'):
                before, _ = soak.quiet()
            with part(f'{args.goals} requests', args.goals) as advance:
                soak.load(begin + 60 * args.minutes, advance)
            with part('a quiet request'):
                after, left = soak.quiet()
    figures = soak.figures() | {'quiet_ttft_ms': [before, after], 'left_live': left,
                                'seconds': time.monotonic() - begin}
    figures['missed'] = missed_bars(figures)
    console.print(table(figures))
    for sentence in figures['missed']:
        console.print(f'MISSED: {sentence}', markup=False)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + '\n')
    return 1 if figures['missed'] else 0


class Soak:
    """The node, the clients, and what came of their requests."""

    def __init__(self, args: Namespace, model: str) -> None:
        self.tally = Tally()
        self._args = args
        self._options = [*OPTIONS, *([f'engine.model:={model}'] if model else [])]
        self._samples: list[tuple[int, int]] = []   # requests over, resident bytes
        self._client_kills, self._node_kills = kill_instants(args.goals, args.kills, args.seed)
        self._node: NodeProcess | None = None
        self._clients: list[Worker | None] = [None] * CLIENTS
        self._begun, self._live = [0] * CLIENTS, [0] * CLIENTS   # requests of each client
        self._done = [False] * CLIENTS

    def __enter__(self) -> 'Soak':
        self._start_node()
        return self

    def __exit__(self, *_) -> None:
        for process in (*self._clients, self._node):
            if process is not None:
                process.close()

    def quiet(self) -> tuple[float, int]:
        """Return the median TTFT (ms) without other load, and the requests live before it."""
        with Worker('slice_ros.bench.ros.neighbour', COLD + QUIET) as neighbour:
            first = neighbour.line(READY_WITHIN, lambda: self._node.alive)
            if first is None:
                raise ValueError(f'the node does not serve: {self._node.end_of_log()}')
            lines = [neighbour.line(READY_WITHIN) for _ in range(COLD + QUIET)]
        times = [line['ttft_ms'] for line in lines[COLD:] if line and line['ttft_ms']]
        if not times:
            raise ValueError('the node serves nobody, although there is no load')
        return median(times), first['live']

    def load(self, end: float, advance: Callable[[float], None]) -> None:
        """Send all requests, with the kills, until about `end` on the monotonic clock."""
        for share in range(CLIENTS):
            self._start_client(share)
        sampled = stopped = 0.0
        while not all(self._done):
            time.sleep(POLL)
            over = self.tally.over
            for share in range(CLIENTS):
                self._read(share)
            advance(self.tally.over - over)
            now = time.monotonic()
            if not self._node.alive:
                raise ValueError(f'the node ended by itself: {self._node.end_of_log()}')
            if now > sampled + SAMPLE_EVERY:
                sampled = now
                self._samples.append((self.tally.over, self._node.resident_bytes() or 0))
            if now > end and not stopped:
                stopped = now
                self._tell(stop=True)
            if stopped and now > stopped + STOP_WITHIN:
                break
            self._kill_what_is_due()
        for share, client in enumerate(self._clients):
            client.close()
            self._count(share, client.lines())
            self._clients[share] = None

    def figures(self) -> dict:
        """Return the counts and the memory of the node."""
        tally, args = self.tally, self._args
        sizes = warm_and_last(self._samples)
        return {
            'goals': args.goals, 'concurrent': args.concurrent, 'seed': args.seed,
            'tiny': args.tiny, **asdict(tally), 'not_sent': args.goals - tally.over,
            'resident_mb': sizes and [size / 2**20 for size in sizes],
            'resident_growth': sizes and sizes[1] / sizes[0] - 1}

    def _start_node(self) -> None:
        self._node = NodeProcess(self._options)

    def _start_client(self, share: int) -> None:
        args = self._args
        self._clients[share] = Worker(
            'slice_ros.bench.ros.soak_client', args.goals, args.cancels, args.seed, share,
            CLIENTS, self._begun[share], args.concurrent // CLIENTS)

    def _read(self, share: int) -> None:
        """Count what a client has reported."""
        client = self._clients[share]
        if not client.alive:
            raise ValueError(f'a client ended by itself: {client.end_of_log()}')
        self._count(share, client.lines())

    def _count(self, share: int, lines: list[dict]) -> None:
        for line in lines:
            rows = line.get('rows', ())
            begun = len(line.get('begun', ()))
            self.tally.sent += begun
            self._begun[share] += begun
            self._live[share] += begun - sum('number' in row for row in rows)
            self._done[share] = line.get('done', False)
            for row in rows:
                self.tally.add(row)

    def _kill_what_is_due(self) -> None:
        over = self.tally.over
        if self._client_kills and over >= self._client_kills[0]:
            self._client_kills.pop(0)
            share = self.tally.client_kills % CLIENTS
            client = self._clients[share]
            client.kill()
            client.close()
            self._count(share, client.lines())
            self.tally.cut_by_client += self._live[share]
            self._live[share] = 0
            self.tally.client_kills += 1
            self._start_client(share)
        if self._node_kills and over >= self._node_kills[0]:
            self._node_kills.pop(0)
            self._node.kill()
            self._node.close()
            self._tell(down=True)
            self.tally.node_kills += 1
            self._start_node()
            self._samples.clear()

    def _tell(self, **order) -> None:
        for client in self._clients:
            client.send(**order)


def table(figures: dict) -> Table:
    """Return the figures beside their bars."""
    grown = figures['resident_growth']
    before, after = figures['quiet_ttft_ms']
    codes = ', '.join(f'{number} {code}' for code, number in figures['codes'].items())
    rows = [('requests sent', f'{figures["sent"]} in {figures["seconds"]:.0f} s', '', None),
            ('  with an answer', f'{figures["ended"]}: {codes}', '', None),
            ('  the last answer after', f'{figures["longest_wait_s"]:.1f} s', '', None),
            ('  cancelled by their client', str(figures['cancels']), '', None),
            ('  cut by a kill of the node', f'{figures["cut_by_node"]} in '
             f'{figures["node_kills"]} kills', '', None),
            ('  cut by a kill of their client', f'{figures["cut_by_client"]} in '
             f'{figures["client_kills"]} kills', '', None)]
    rows += [(f'unanswered, sent by {way}', str(number), '', None)
             for way, number in figures['unanswered_ways'].items()]
    rows += [(label, str(figures[name]), '0', not figures[name]) for label, name in (
        ('unanswered', 'unanswered'), ('ended twice', 'ended_twice'), ('chunks lost', 'lost'),
        ('chunks reordered', 'reordered'), ('still live after the end', 'left_live'))]
    rows += [('resident growth after warm-up', 'too few requests to tell' if grown is None
              else f'{grown:.1%}', f'{MAX_GROWTH:.0%}',
              None if grown is None else grown < MAX_GROWTH),
             ('  from, to', ', '.join(f'{size:.0f} MB' for size in figures['resident_mb'] or ()),
              '', None),
             ('TTFT of a quiet request', f'{before:.1f} ms before, {after:.1f} ms after', '',
              None)]
    shown = Table('figure', 'measured', 'bar', '')
    for what, measured, bar, kept in rows:
        shown.add_row(what, measured, bar, {None: '', True: 'kept', False: 'MISSED'}[kept])
    return shown
