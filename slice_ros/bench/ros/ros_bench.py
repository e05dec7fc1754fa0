# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench ros``: what callers receive over topics from a node in a process of its own.

This process is the caller. It starts the node as a user would, sends requests, and compares what
arrives on the token topics with the objectives and with the node's own diagnostics.
"""

from argparse import ArgumentParser, Namespace
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from slice_ros.bench.processes import own_domain
from slice_ros.bench.progress import parts
from slice_ros.bench.ros import ros_measure as measure
from slice_ros.bench.ros.ros_caller import calling, serving
from slice_ros.bench.ros.ros_floor import floor


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench ros``."""
    parser.add_argument('--streams', type=int, default=8, help='answers that stream at once')
    parser.add_argument('--tokens', type=int, default=6400,
                        help='tokens to deliver in all (default: %(default)s)')
    parser.add_argument('--trials', type=int, default=20,
                        help=f'control goals sent beside {measure.DIALOGUES} dialogues '
                        '(default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=15.0,
                        help='time for which each rate is measured (default: %(default)s)')
    parser.add_argument('--policy', default='', help="scheduling policy; the node's default if "
                        'not given')
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Run ``slice_bench ros``.

    Raises ``ValueError`` for a flag out of range, and when the node does not serve.
    """
    for name in ('streams', 'tokens', 'trials', 'seconds'):
        if not 1 <= getattr(args, name) < 1e9:
            raise ValueError(f'--{name} must be at least 1')
    own_domain()
    console = Console()
    options = [f'engine.model:={args.model}'] if args.model else []
    options += [f'scheduler.policy:={args.policy}'] if args.policy else []
    seconds = args.seconds
    result = {}
    with calling() as caller, parts(console) as part:
        with part('a bare publisher and subscriber'):
            result['floor'] = floor(caller, args.streams, seconds)
        with part('starting the node'), serving(caller, options) as node:
            with part(f'{args.tokens} tokens in {args.streams} streams', args.tokens) as advance:
                result['delivery'] = measure.delivery(caller, args.streams, args.tokens, advance)
            with part('processor time, paced and not', 2 * seconds) as advance:
                result['energy'] = measure.energy(caller, node, 4, seconds, advance)
            with part(f'control beside {measure.DIALOGUES} dialogues', args.trials) as advance:
                result['control_under_dialogue'] = measure.control_under_dialogue(
                    caller, args.trials, advance)
            caller.set_parameter('rate_control.mode', 'paced')
            with part(f'{args.streams} streams, paced', seconds) as advance:
                result['delivery'] |= measure.paced_delivery(caller, args.streams, seconds,
                                                             advance)
            with part('paced at 100 ms', seconds) as advance:
                result['paced'] = measure.paced(caller, seconds, advance)
        options += ['rate_control.mode:=paced', 'use_sim_time:=true']
        with part('starting the node'), serving(caller, options):
            with part('on simulated time', 2 * seconds + 4.0) as advance:
                result['sim_time'] = measure.sim_time(caller, seconds, advance)
    console.print(table(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    return 0


def table(result: dict[str, dict]) -> Table:
    """Return the figures beside their bounds."""
    delivery, control = result['delivery'], result['control_under_dialogue']
    paced, clock, energy = result['paced'], result['sim_time'], result['energy']
    bare = result['floor']
    share = control['attained'] / control['trials']
    rows = [
        ('rate of a class at 100 ms', f'{paced["rate_error"]:.2%} off', '3 %',
         paced['rate_error'] <= 0.03),
        ('jitter between its tokens, p99', f'{paced["jitter_p99_ms"]:.1f} ms', '15 ms',
         paced['jitter_p99_ms'] < 15),
        ('rate with /clock at half speed', f'{clock["half"]:.3f}', '0.5 ± 3 %',
         abs(clock['half'] / 0.5 - 1) <= 0.03),
        ('rate with /clock at double speed', f'{clock["double"]:.3f}', '2 ± 3 %',
         abs(clock['double'] / 2 - 1) <= 0.03),
        ('tokens while /clock stands still', str(clock['stopped']), '0', not clock['stopped']),
        ('share of the loop spent on delivery', f'{delivery["loop_share"]:.2%}', '3 %',
         delivery['loop_share'] <= 0.03),
        ('engine to subscriber, processor full, p50', f'{delivery["latency_p50_ms"]:.2f} ms', '',
         None),
        ('engine to subscriber, processor full, p99', f'{delivery["latency_p99_ms"]:.2f} ms',
         '3 ms', delivery['latency_p99_ms'] < 3),
        ('  a bare publisher beside busy loops, p50, p99',
         f'{bare["busy_p50_ms"]:.2f} ms, {bare["busy_p99_ms"]:.2f} ms', '', None),
        ('engine to subscriber, paced, p50', f'{delivery["paced_latency_p50_ms"]:.2f} ms', '',
         None),
        ('engine to subscriber, paced, p99', f'{delivery["paced_latency_p99_ms"]:.2f} ms',
         '3 ms', delivery['paced_latency_p99_ms'] < 3),
        ('  a bare publisher on idle cores, p50, p99',
         f'{bare["idle_p50_ms"]:.2f} ms, {bare["idle_p99_ms"]:.2f} ms', '', None),
        (f'lost of {delivery["tokens"]} tokens', str(delivery['lost']), '0',
         not delivery['lost']),
        ('reordered', str(delivery['reordered']), '0', not delivery['reordered']),
        (f'control attained beside {measure.DIALOGUES} dialogues',
         f'{control["attained"]} of {control["trials"]}', '95 %', share >= 0.95),
        ('processor time a token, paced', f'{energy["paced_s_per_token"] * 1e3:.2f} ms, '
         f'{energy["paced_cores"]:.0%} of a core', '', None),
        ('processor time a token, work conserving',
         f'{energy["work_conserving_s_per_token"] * 1e3:.2f} ms, '
         f'{energy["work_conserving_cores"]:.0%} of a core', '', None)]
    shown = Table('figure', 'measured', 'bar', '')
    for what, measured, bar, kept in rows:
        shown.add_row(what, measured, bar, {None: '', True: 'kept', False: 'MISSED'}[kept])
    return shown
