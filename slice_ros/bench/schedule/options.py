# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Flags that the subcommands of `slice_bench` share, and the workloads and policies of them."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from dataclasses import replace
import math
from pathlib import Path
import random

from slice_ros.bench.answers.answer_schemas import longest_within, SIZES
from slice_ros.bench.config_files import config_file
from slice_ros.bench.schedule.workload import Arrival, generate, scale_slo, Workload
from slice_ros.bench.schedule.workload_file import load_trace, load_workload
from slice_ros.scheduling.policy import Capacity, Policy
from slice_ros.scheduling.policy_options import parse_options
from slice_ros.scheduling.registry import make_policy, POLICIES, policy_class

# The policies of this package, the default one last: plots show its decode mask.
ALL_POLICIES = sorted(POLICIES, key=lambda name: (name == 'slice', name))
# Without a flag: few, since `serve` runs each of them in real time.
DEFAULT_POLICIES = ['fastserve', 'orca', 'slice_static', 'slice']


def add_common_arguments(parser: ArgumentParser, policies: bool = True) -> None:
    """Add the flags of a subcommand that runs a workload; `policies` adds theirs and the plot."""
    parser.add_argument('--workload', default='published', metavar='NAME_OR_FILE',
                        help='a name of config/workloads or a YAML file (default: %(default)s)')
    parser.add_argument('--trace', type=Path, metavar='FILE',
                        help='replay this recorded JSONL trace instead of a workload')
    parser.add_argument('--mix', help='shares per class, e.g. control=0.4,navigation=0.3')
    parser.add_argument('--rates', type=floats, default=[1.0, 2.0, 4.0],
                        help='loads in requests a second (default: 1,2,4)')
    parser.add_argument('--requests', type=positive_int, default=400,
                        help='requests a run (default: %(default)s)')
    parser.add_argument('--seeds', type=integers, default=[1, 2, 3], help='(default: 1,2,3)')
    if policies:
        parser.add_argument('--policies', default=DEFAULT_POLICIES, type=policy_specs,
                            metavar='all|NAME[:OPTION=VALUE...],...',
                            help='all that are built in, or comma-separated ones, e.g. '
                                 'slice_static:capacity_ratio=0.6 '
                                 f'(default: {",".join(DEFAULT_POLICIES)})')
        parser.add_argument('--plot', type=Path, metavar='OUT.png', help='draw the figures here')
        parser.add_argument('--structured', type=_share, default=0.0, metavar='SHARE',
                            help='share of the requests that ask for a JSON schema; each policy '
                                 'serves them with and without jump-forward, which is called '
                                 'plain')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures here')
    parser.add_argument('--max-batch', type=positive_int, default=16,
                        help='requests in one decode step (default: %(default)s)')
    parser.add_argument('--slots', type=positive_int, default=64,
                        help='requests with a KV cache at once (default: %(default)s)')


def draw_loads(args: Namespace, slo_scale: float = 1.0, reveal: bool = False
               ) -> Iterable[tuple[float, int, tuple[Arrival, ...]]]:
    """Yield (rate, seed, arrivals) of every load and seed of the flags.

    `slo_scale` multiplies all objectives; with `reveal`, ``max_tokens`` is the true length.
    Raises ``ValueError`` for a workload, trace or mix that cannot be used.
    """
    if args.trace:
        if args.mix:
            raise ValueError('--mix does not go with --trace: a trace has its own mix')
        arrivals = load_trace(args.trace)
        start = arrivals[0].time
        arrivals = [replace(a, time=a.time - start, slo=scale_slo(a.slo, slo_scale))
                    for a in arrivals]
        rate = len(arrivals) / max(arrivals[-1].time, 1e-9)
        for seed in args.seeds:
            yield round(rate, 3), seed, _revealed(arrivals, reveal)
        return
    workload = _workload(args).scaled(slo_scale)
    for rate in args.rates:
        for seed in args.seeds:
            arrivals = generate(workload, rate, args.requests, seed)
            if getattr(args, 'structured', 0):
                arrivals = structured(arrivals, args.structured, seed)
            yield rate, seed, _revealed(arrivals, reveal)


def structured(arrivals: list[Arrival], share: float, seed: int) -> list[Arrival]:
    """Return `arrivals` of which a random `share` ask for the longest schema that they hold.

    Their length is a usual one: on the engine it is what the model makes of it.
    """
    draw, found = random.Random(f'structured {seed}'), []
    for a in arrivals:
        if draw.random() < share:
            name = longest_within(a.max_tokens)
            a = replace(a, answer=name, output_tokens=SIZES[name].tokens,
                        forced=SIZES[name].forced)
        found.append(a)
    return found


def ways(args: Namespace) -> tuple[bool, ...]:
    """Return with and without jump-forward, where there are structured answers."""
    return (True, False) if args.structured else (True,)


def _workload(args: Namespace) -> Workload:
    workload = load_workload(config_file('workloads', args.workload))
    if not args.mix:
        return workload
    mix = {}
    for part in names(args.mix):
        name, equals, share = part.partition('=')
        try:
            mix[name] = float(share)
        except ValueError:
            raise ValueError(f'--mix: expected class=share, not {part!r:.80}') from None
    return workload.with_mix(mix)


def _revealed(arrivals: list[Arrival], reveal: bool) -> tuple[Arrival, ...]:
    if reveal:
        arrivals = [replace(a, max_tokens=min(a.max_tokens, a.output_tokens)) for a in arrivals]
    return tuple(arrivals)


def names(text: str) -> list[str]:
    """Split a comma-separated flag."""
    return [part.strip() for part in text.split(',') if part.strip()]


def policy_specs(text: str) -> list[str]:
    """Split a flag of policies, each once; `all` stands for those that are built in."""
    return list(dict.fromkeys(spec for part in names(text)
                              for spec in (ALL_POLICIES if part == 'all' else (part,))))


def floats(text: str) -> list[float]:
    """Parse a comma-separated flag of numbers above 0."""
    return [positive(part) for part in names(text)]


def integers(text: str) -> list[int]:
    """Parse a comma-separated flag of whole numbers."""
    try:
        return [int(part) for part in names(text)]
    except ValueError:
        raise ArgumentTypeError(f'{text!r:.80} is not a list of whole numbers') from None


def positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f'{text!r:.80} is not a number above 0')
    return value


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ArgumentTypeError(f'{text!r:.80} is no share from 0 to 1')
    return share


def positive_int(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f'{text!r:.80} is not a whole number above 0')
    return int(text)


def positive_ints(text: str) -> list[int]:
    """Parse a comma-separated flag of whole numbers above 0."""
    return [positive_int(part) for part in names(text)]


def policy_from_spec(spec: str, capacity: Capacity) -> Policy:
    """Make the policy of ``name[:option=value[:option=value...]]``.

    Raises ``ValueError`` naming what is wrong.
    """
    return make_policy(spec.split(':')[0], capacity, **spec_options(spec))


def spec_options(spec: str) -> dict[str, object]:
    """Return the options of a policy spec. Raises ``ValueError`` naming the part at fault."""
    name, *parts = spec.split(':')
    texts = {}
    for part in parts:
        key, equals, value = part.partition('=')
        if not equals or not key:
            raise ValueError(f'policy {spec!r:.80}: expected option=value, not {part!r:.80}')
        texts[key] = value
    return parse_options(name, policy_class(name), texts)
