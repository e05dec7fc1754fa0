# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench admission``: whether refusals are right, by serving refused requests after all.

A run refuses each request whose objectives cannot be met by its prediction. The run is then
repeated with one refused request admitted. The refusal was wrong if that request attains and the
change costs no more attained requests of at least its utility than it adds.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
import json
import random
import sys

from rich.console import Console
from rich.progress import track
from rich.table import Table
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.options import add_common_arguments, draw_loads, positive_int
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.request import Request
from slice_ros.scheduling.admission import predict
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity, Step
from slice_ros.scheduling.slice.slice_policy import Slice


class Refusing(Slice):
    """`slice` with admission control; `admitted` is the id of one request it always admits."""

    def __init__(self, capacity: Capacity, admitted: str = '') -> None:
        super().__init__(capacity)
        self.admitted = admitted
        self.refused: set[str] = set()
        self._asked: set[str] = set()

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        """Drop new requests that cannot be met, before anything else is planned."""
        live, drop = [], []
        for request in requests:
            if request.id not in self._asked:
                self._asked.add(request.id)
                feasible = predict(self, now, request, live, latency).feasible
                if not feasible and request.id != self.admitted:
                    self.refused.add(request.id)
                    drop.append(request)
                    continue
            live.append(request)
        return Step(drop=tuple(drop)) if drop else super().plan(now, requests, latency)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench admission``."""
    add_common_arguments(parser, policies=False)
    parser.set_defaults(rates=[3.0, 4.0], requests=300)
    parser.add_argument('--profile', default='slice-authors-rtx4060ti',
                        metavar='NAME_OR_FILE', help='(default: %(default)s)')
    parser.add_argument('--replays', type=positive_int, default=40,
                        help='refusals checked in each run, drawn at random (default: '
                             '%(default)s)')


def run(args: Namespace) -> int:
    """Run ``slice_bench admission``. Raises ``ValueError`` saying what is wrong."""
    latency = load_profile(config_file('profiles', args.profile))
    capacity = Capacity(max_batch=args.max_batch, slots=args.slots)
    loads = list(draw_loads(args))
    with ProcessPoolExecutor() as pool:
        runs = [pool.submit(check, latency, capacity, arrivals, args.replays, seed)
                for _, seed, arrivals in loads]
        rows = [{'rate': rate, 'seed': seed, **done.result()} for (rate, seed, _), done in track(
            list(zip(loads, runs)), 'replaying', console=Console(stderr=True))]
    table = Table(title='refusals, all seeds together', title_justify='left')
    for name in ('req/s', 'requests', 'refused', 'checked', 'wrong', 'right, %',
                 'attained, %: refusing', 'accepting'):
        table.add_column(name, justify='right')
    for rate in dict.fromkeys(row['rate'] for row in rows):
        at = [row for row in rows if row['rate'] == rate]
        total = {key: sum(row[key] for row in at) for key in at[0]}
        right = 100 * (1 - total['wrong'] / max(total['checked'], 1))
        table.add_row(f'{rate:g}', *(str(total[key]) for key in (
            'requests', 'refused', 'checked', 'wrong')), f'{right:.1f}',
            *(f'{100 * total[key] / total["requests"]:.1f}' for key in ('attained', 'accepting')))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if args.json:
        args.json.write_text(json.dumps({'runs': rows}, indent=1) + '\n')
    return 0


def check(latency: LatencyModel, capacity: Capacity, arrivals: Sequence[Arrival], replays: int,
          seed: int) -> dict[str, int]:
    """Run one workload with refusals, replay up to `replays` of them, and return the counts."""
    policy = Refusing(capacity)
    before = _attained(policy, latency, arrivals)
    refused = sorted(policy.refused)
    drawn = random.Random(seed).sample(refused, min(replays, len(refused)))
    wrong = sum(_wrong(name, before, _attained(Refusing(capacity, name), latency, arrivals))
                for name in drawn)
    accepting = _attained(Slice(capacity), latency, arrivals)
    return {'requests': len(arrivals), 'refused': len(refused), 'checked': len(drawn),
            'wrong': wrong, 'attained': sum(met for met, _ in before.values()),
            'accepting': sum(met for met, _ in accepting.values())}


def _attained(policy: Slice, latency: LatencyModel, arrivals: Sequence[Arrival]
              ) -> dict[str, tuple[bool, float]]:
    """Return (attained, utility) by request id."""
    result = simulate(policy, latency, arrivals)
    return {r.id: (r.report().attained, r.slo.utility) for r in result.requests}


def _wrong(name: str, before: dict[str, tuple[bool, float]],
           after: dict[str, tuple[bool, float]]) -> bool:
    met, utility = after[name]
    cost = sum(was - after[other][0] for other, (was, weight) in before.items()
               if other != name and weight >= utility)
    return met and cost <= 0
