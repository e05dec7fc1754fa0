# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench abuse``: what hostile inputs do to the node, and to another of its callers.

Three processes beside this one: the node, the sender of the inputs, and a neighbour that asks for
four tokens again and again. An input's extra wait is the longest wait of a neighbour's request
that was under way between the input's first message and its last answer, or sent before the
neighbour was served once more after it, less the median wait on the idle node. Its floor is what
rclpy takes to read it, before any code of the node sees it: the bar applies to the rest.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
import json
from pathlib import Path
from statistics import median
import sys
import time

from rich.console import Console
from rich.table import Table
from slice_ros.bench.processes import end_as_interrupted, NodeProcess, own_domain, Worker
from slice_ros.bench.progress import parts
from slice_ros.bench.ros.abuse_corpus import Case, CORPUS
from slice_ros.bench.ros.abuse_sender import code_name

LIMIT_MS = 100.0        # of the extra wait of a neighbour
ANSWER_WITHIN = 20.0    # seconds from the last message of an input to its last answer
RECOVER_WITHIN = 120.0  # seconds in which the neighbour has to be served again
READY_WITHIN = 300.0    # seconds; the first start on a machine converts and profiles the model
SETTLE = 2.0            # seconds in which the middleware of the node meets the sender's
IDLE_WAITS = 50         # requests of the neighbour that give the median on the idle node
SHOWN = 60              # characters of a sentence in the table
NOT_SERVED = 'the neighbour was not served'


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an input did."""

    name: str
    family: str
    code: str            # of its answers
    sentence: str        # of its first answer
    seconds: float       # to its last answer
    sent: int            # messages
    answered: int
    extra_ms: float      # worst extra wait of the neighbour
    floor_ms: float      # processor time in which rclpy reads a message of it
    fault: str           # what is wrong beside a wait; empty = nothing


@dataclass(frozen=True, slots=True)
class Wait:
    """One request of the neighbour; times are seconds on the monotonic clock."""

    at: float
    wait: float
    code: int | None     # None = no answer


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of ``slice_bench abuse``."""
    parser.add_argument('--seconds', type=float, default=0.5, help='shortest time for which the '
                        'neighbour is observed for each input (default: %(default)s)')
    parser.add_argument('--minutes', type=float, default=20.0, help='longest time for all of them '
                        '(default: %(default)s)')
    parser.add_argument('--limit-ms', type=float, default=LIMIT_MS, help='longest extra wait of '
                        'the neighbour (default: %(default)s)')
    parser.add_argument('--only', default='', metavar='TEXT', help='inputs with this in their '
                        'name (default: all)')
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--json', type=Path, metavar='OUT', help='file to write the figures to')


def run(args: Namespace) -> int:
    """Run ``slice_bench abuse``; return 1 when a bar is missed.

    Raises ``ValueError`` for a flag out of range, and when the node does not serve.
    """
    for name in ('seconds', 'minutes', 'limit_ms'):
        if not 0 < getattr(args, name) < 1e9:
            raise ValueError(f'--{name.replace("_", "-")} must be above 0')
    cases = [case for case in CORPUS if args.only in case.name]
    if not cases:
        raise ValueError(f'no input has {args.only!r} in its name')
    own_domain()
    end_as_interrupted()
    console = Console(width=None if sys.stdout.isatty() else 120)
    options = [f'engine.model:={args.model}'] if args.model else []
    end = time.monotonic() + 60 * args.minutes
    outcomes: list[Outcome] = []
    with Stand(options) as stand, parts(console) as part:
        with part('the neighbour alone'):
            idle = stand.start()
        before = stand.node.resident_bytes()
        with part(f'{len(cases)} hostile inputs', len(cases)) as advance:
            for case in cases:
                if time.monotonic() > end:
                    break
                outcomes.append(stand.throw(case, args.seconds))
                advance(1)
                if outcomes[-1].fault in (NOT_SERVED, stand.ended):
                    stand.start()
        after = stand.node.resident_bytes()
    result = summary(outcomes, [case.name for case in cases], idle, args.limit_ms)
    result['resident_mb'] = [before / 2**20, after and after / 2**20]
    console.print(table(outcomes, args.limit_ms))
    _print_summary(console, result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    return 1 if result['missed'] else 0


class Stand:
    """The node, its neighbour and the sender of hostile inputs."""

    ended = 'the node ended'

    def __init__(self, options: list[str]) -> None:
        self._options, self._stack = options, ExitStack()
        self._waits: list[Wait] = []

    def __enter__(self) -> 'Stand':
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def start(self) -> list[float]:
        """Start all three anew; return the waits (s) of the neighbour on the idle node."""
        self._stack.close()
        self.node = self._stack.enter_context(NodeProcess(self._options))
        self.neighbour = self._stack.enter_context(Worker('slice_ros.bench.ros.neighbour', 0))
        if self.neighbour.line(READY_WITHIN, lambda: self.node.alive) is None:
            raise ValueError(f'the node does not serve: {self.node.end_of_log()}')
        self.sender = self._stack.enter_context(
            Worker('slice_ros.bench.ros.abuse_sender', ANSWER_WITHIN))
        if self.sender.line(READY_WITHIN) is None:
            raise ValueError('the sender of hostile inputs does not start')
        time.sleep(SETTLE)
        self.neighbour.lines()   # its first requests, beside the start of the sender
        self._waits = []
        end = time.monotonic() + RECOVER_WITHIN
        while len(self._waits) < IDLE_WAITS and time.monotonic() < end:
            self._listen()
        if any(wait.code for wait in self._waits) or not self._waits:
            raise ValueError('the neighbour is not served on an idle node')
        self.idle_s = median(wait.wait for wait in self._waits)
        return [wait.wait for wait in self._waits]

    def throw(self, case: Case, seconds: float) -> Outcome:
        """Send an input, and observe the neighbour for `seconds` at least."""
        self._listen()
        begin = time.monotonic()
        self.sender.send(case=case.name)
        reply, patience = None, begin + 3 * ANSWER_WITHIN
        while reply is None and self.node.alive and time.monotonic() < patience:
            self._listen()
            reply = next(iter(self.sender.lines()), None)
        end = time.monotonic()
        while (self.node.alive and time.monotonic() < end + RECOVER_WITHIN
               and not (self._served_since(end) and time.monotonic() > begin + seconds)):
            self._listen()
        reply = reply or {'seconds': end - begin, 'sent': 1, 'answered': 0, 'expected': 1,
                          'code': '-', 'sentence': '', 'floor_ms': 0.0}
        waits = overlapping(self._waits, begin)
        fault = fault_of(reply['expected'], reply['answered'], waits)
        if not self.node.alive:
            fault = self.ended
        elif not self._served_since(end):
            fault = NOT_SERVED
        longest = max((wait.wait for wait in waits), default=time.monotonic() - begin)
        return Outcome(case.name, case.family, reply['code'], reply['sentence'], reply['seconds'],
                       reply['sent'], reply['answered'],
                       max(longest - self.idle_s, 0.0) * 1e3, reply['floor_ms'], fault)

    def _served_since(self, moment: float) -> bool:
        return bool(self._waits) and self._waits[-1].at >= moment

    def _listen(self) -> None:
        line = self.neighbour.line(0.02)
        for found in [line] * (line is not None) + self.neighbour.lines():
            self._waits.append(Wait(found['at'], found['wait'], found['code']))


def overlapping(waits: Iterable[Wait], begin: float) -> list[Wait]:
    """Return the requests that had not ended at `begin`."""
    return [wait for wait in waits if wait.at + wait.wait >= begin]


def fault_of(expected: int, answered: int, waits: Iterable[Wait]) -> str:
    """Return what is wrong with the answers to an input and to the neighbour."""
    if answered < expected:
        return f'{expected - answered} without an answer'
    codes = {wait.code for wait in waits}
    if None in codes:
        return 'the neighbour had no answer'
    refused = sorted(code_name(code) for code in codes if code)
    return f'the neighbour was refused: {", ".join(refused)}' if refused else ''


def summary(outcomes: Sequence[Outcome], names: Sequence[str], idle: Sequence[float],
            limit_ms: float) -> dict:
    """Return the figures and, as sentences, the bars that are missed."""
    worst = max((outcome.extra_ms for outcome in outcomes), default=0.0)
    beyond = max((outcome.extra_ms - outcome.floor_ms for outcome in outcomes), default=0.0)
    faults = [f'{outcome.name}: {outcome.fault}' for outcome in outcomes if outcome.fault]
    not_sent = list(names[len(outcomes):])
    missed = list(faults)
    if beyond > limit_ms:
        missed.append(f'the worst extra wait beyond the floor is {beyond:.0f} ms, above '
                      f'{limit_ms:g} ms')
    if not_sent:
        missed.append(f'{len(not_sent)} inputs were not sent: give more --minutes')
    return {'limit_ms': limit_ms,
            'idle': {'requests': len(idle), 'median_ms': median(idle) * 1e3,
                     'worst_extra_ms': (max(idle) - median(idle)) * 1e3},
            'worst_extra_ms': worst, 'worst_beyond_ms': beyond,
            'inputs': [asdict(outcome) for outcome in outcomes],
            'not_sent': not_sent, 'missed': missed}


def worst_of_families(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the worst outcome of each family, the worst of all first."""
    worst: dict[str, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda o: (not o.fault, o.floor_ms - o.extra_ms)):
        worst.setdefault(outcome.family, outcome)
    return list(worst.values())


def table(outcomes: Sequence[Outcome], limit_ms: float) -> Table:
    """Return the worst outcome of each family of inputs."""
    shown = Table('input', 'answer', 'seconds', 'extra wait', 'floor', '')
    for outcome in worst_of_families(outcomes):
        sentence = outcome.sentence[:SHOWN] + '...' * (len(outcome.sentence) > SHOWN)
        kept = not outcome.fault and outcome.extra_ms - outcome.floor_ms <= limit_ms
        shown.add_row(outcome.name, f'{outcome.code}  {sentence}'.replace('[', r'\['),
                      f'{outcome.seconds:.2f}', f'{outcome.extra_ms:.0f} ms',
                      f'{outcome.floor_ms:.0f} ms', 'kept' if kept else outcome.fault or 'MISSED')
    return shown


def _print_summary(console: Console, result: dict) -> None:
    idle, (before, after) = result['idle'], result['resident_mb']
    console.print(f'{len(result["inputs"])} inputs; on an idle node the neighbour waits '
                  f'{idle["median_ms"]:.0f} ms, at most {idle["worst_extra_ms"]:.0f} ms more; '
                  f'worst extra wait {result["worst_extra_ms"]:.0f} ms')
    if idle['worst_extra_ms'] > result['limit_ms']:
        console.print('The machine is not idle: stop other programs, these waits say nothing.')
    if after:
        console.print(f'resident memory of the node: {before:.0f} MB, then {after:.0f} MB')
    for sentence in result['missed']:
        console.print(f'MISSED: {sentence}', markup=False)
