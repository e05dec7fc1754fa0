# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench router``: two slice nodes behind a router, one of which is killed under load.

Nodes and router run in processes of their own. What callers of the router attain is counted before
and after the kill, and every request must end.
"""

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
import json
from pathlib import Path
import random
import sys
import time

from rich.console import Console
from rich.table import Table
from slice_ros.bench.processes import end_as_interrupted, own_domain, Process
from slice_ros.bench.progress import parts

SIDES = ('onboard', 'station')
CLASSES = {'control': ('A box is 0.4 m ahead. Stop or go?', 8),
           'dialogue': ('Tell me about the warehouse.', 32)}   # prompt, max_tokens
SHARE_CONTROL = 0.5     # of the requests
READY_WITHIN = 300.0    # seconds; the first start on a machine converts and profiles the model
ANSWER_WITHIN = 60.0    # seconds after the last request: more counts as lost
MAX_FALL = 5.0          # points by which control may attain less after the kill


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench router``."""
    parser.add_argument('--rate', type=float, default=4.0, help='requests a second '
                        '(default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=20.0, help='of load before the kill, and '
                        'as many after it (default: %(default)s)')
    parser.add_argument('--kill', choices=SIDES, default='onboard', help='the node that is killed '
                        '(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=1, help='(default: %(default)s)')
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--option', action='append', default=[], metavar='NAME:=VALUE',
                        help='parameter of the router')
    parser.add_argument('--json', type=Path, metavar='OUT', help='file to write the figures to')


def run(args: Namespace) -> int:
    """Run ``slice_bench router``; return 1 when a bar is missed.

    Raises ``ValueError`` for a flag out of range, and when a node does not serve.
    """
    if not 0 < args.rate <= 1000 or not 0 < args.seconds <= 3600:
        raise ValueError('--rate must be 0 to 1000, --seconds 0 to 3600')
    own_domain()
    end_as_interrupted()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with ExitStack() as stack:
        rows = _measure(args, stack, stack.enter_context(parts(console)))
    figures = {'rate': args.rate, 'seconds': args.seconds, 'seed': args.seed, 'kill': args.kill,
               'model': args.model, 'rows': rows, 'missed': missed_bars(rows)}
    console.print(_table(rows))
    for sentence in figures['missed']:
        console.print(f'MISSED: {sentence}', markup=False)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + '\n')
    return 1 if figures['missed'] else 0


def missed_bars(rows: list[dict]) -> list[str]:
    """Return a sentence for each bar that is missed."""
    missed = []
    lost = sum(row['lost'] for row in rows)
    if lost:
        missed.append(f'{lost} requests have no answer')
    before, after = (next(row for row in rows if row['slo_class'] == 'control'
                          and row['after'] is after) for after in (False, True))
    fall = before['attained_percent'] - after['attained_percent']
    if fall > MAX_FALL:
        missed.append(f'control attains {fall:.1f} points less after the kill')
    return missed


def _measure(args: Namespace, stack: ExitStack, part) -> list[dict]:
    """Start all, send the load with the kill in its middle, and count."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from slice_ros.client import SliceClient
    options = ['--ros-args', *(['-p', f'engine.model:={args.model}'] if args.model else [])]
    nodes = {side: stack.enter_context(Process(
        'slice_ros.ros.main', *options, '-r', f'__ns:=/{side}')) for side in SIDES}
    router = stack.enter_context(Process(
        'slice_ros.router.router_main', '--ros-args', '-p',
        f'nodes:={[f"/{side}/slice" for side in SIDES]}',
        *(each for option in args.option for each in ('-p', option))))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stack.callback(rclpy.shutdown)
    planner = rclpy.create_node('slice_bench')
    executor = SingleThreadedExecutor()
    executor.add_node(planner)
    stack.callback(planner.destroy_node)
    stack.callback(executor.shutdown)

    def client_of(target: str) -> SliceClient:
        client = SliceClient(planner, target)
        stack.callback(client.close)
        task = executor.create_task(client.wait_until_ready, READY_WITHIN)
        while not task.done():
            executor.spin_once(0.1)
            for process in (*nodes.values(), router):
                if not process.alive:
                    raise ValueError(f'a node ended: {process.end_of_log()}')
        task.result()
        return client
    with part('starting two nodes'):
        for side in SIDES:
            client_of(f'/{side}/slice')
        client = client_of('/slice_router')
        for _, (prompt, tokens) in CLASSES.items():   # the first requests are slower
            executor.spin_until_future_complete(client.ask_future(prompt, max_tokens=tokens), 60.0)
    with part(f'{2 * args.seconds:g} s of load'):
        return _load(args, client, executor, nodes[args.kill])


def _load(args: Namespace, client, executor, victim: Process) -> list[dict]:
    """Send requests at random instants, kill `victim` half way, and count what came of them."""
    rng, sent = random.Random(args.seed), []
    begin, due, killed_at = time.monotonic(), 0.0, None
    while due < 2 * args.seconds:
        while (now := time.monotonic() - begin) < due:
            executor.spin_once(min(due - now, 0.1))
            if killed_at is None and time.monotonic() - begin >= args.seconds:
                victim.kill()
                killed_at = time.monotonic() - begin
        slo_class = 'control' if rng.random() < SHARE_CONTROL else 'dialogue'
        prompt, tokens = CLASSES[slo_class]
        sent.append((due, slo_class, client.ask_future(prompt, slo_class, max_tokens=tokens)))
        due += rng.expovariate(args.rate)
    end = time.monotonic() + ANSWER_WITHIN
    while time.monotonic() < end and not all(future.done() for *_, future in sent):
        executor.spin_once(0.1)
    return [_row(slo_class, after, [
        future for due, name, future in sent if name == slo_class
        and (due >= args.seconds) is after]) for slo_class in CLASSES for after in (False, True)]


def _row(slo_class: str, after: bool, futures: list) -> dict:
    """Return the counts of the requests of a class before or after the kill."""
    done = [future for future in futures if future.done()]
    answers = [future.result() for future in done if future.exception() is None]
    codes: dict[str, int] = {}
    for future in done:
        if future.exception() is not None:
            name = getattr(future.exception().code, 'name', str(future.exception().code))
            codes[name] = codes.get(name, 0) + 1
    attained = sum(answer.report.attained for answer in answers)
    return {'slo_class': slo_class, 'after': after, 'requests': len(futures),
            'answered': len(answers), 'codes': codes, 'lost': len(futures) - len(done),
            'attained': attained, 'attained_percent': 100 * attained / max(len(futures), 1),
            'longest_ms': max((answer.report.completion_ms for answer in answers), default=0.0)}


def _table(rows: list[dict]) -> Table:
    shown = Table('class', 'when', 'requests', 'answered', 'refused or ended', 'lost', 'attained',
                  'longest')
    for row in rows:
        shown.add_row(
            row['slo_class'], 'after the kill' if row['after'] else 'before',
            str(row['requests']), str(row['answered']),
            ', '.join(f'{number} {code}' for code, number in row['codes'].items()) or '-',
            str(row['lost']), f'{row["attained_percent"]:.1f} %', f'{row["longest_ms"]:.0f} ms')
    return shown
