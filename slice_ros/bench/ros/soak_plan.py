# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What ``slice_bench soak`` sends, and what it counts. Pure: the same seed gives the same plan."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
import random
from statistics import median

# The ways in, by their share. `client` is `slice_ros.client`, the others are bare rclpy.
WAYS = {'action': 4, 'client': 3, 'service': 2, 'topic': 1}
CLASSES = {'control': 2, 'navigation': 3, 'dialogue': 5}
MAX_TOKENS = (1, 16)       # of an answer, both ends included
WORDS = (2, 120)           # of a prompt
CANCEL_WITHIN = 0.6        # seconds from sending a request to its cancel, at most
SESSIONS = 40              # conversations that requests belong to
SHARE_SESSION, SHARE_FORMAT, SHARE_SAMPLED, SHARE_REFUSED = 0.15, 0.1, 0.3, 0.02
UNKNOWN_CLASS = 'nobody'   # of the requests that are refused
VOCABULARY = ('robot', 'aisle', 'pallet', 'left', 'battery', 'door', 'charge', 'two', 'metres',
              'ahead', 'shelf', 'lift', 'route', 'stop', 'go', 'wait', 'person', 'box')
MAX_GROWTH = 0.02          # of resident memory after warm-up
NODE_KILLS_UNTIL = 0.3     # share of the requests at which the last kill of the node comes
WARM_UP = 1 / 3            # share of the requests after the last kill of the node
COMPARED = 0.1             # share of them over which memory is compared
MIN_GOALS = 1000           # with fewer requests after it, growth says nothing


@dataclass(frozen=True, slots=True)
class Goal:
    """One request, and when it is cancelled."""

    number: int
    way: str
    slo_class: str
    prompt: str
    max_tokens: int
    session_id: str = ''
    choices: tuple[str, ...] = ()
    temperature: float = 0.0
    cancel_after: float | None = None   # seconds after it was sent

    @property
    def streamed(self) -> bool:
        """Whether its class has a topic of tokens."""
        return self.slo_class in CLASSES


def make_plan(goals: int, cancels: int, seed: int) -> list[Goal]:
    """Return `goals` requests, of which `cancels` are cancelled at random instants."""
    rng = random.Random(seed)
    cancelled = set(rng.sample(range(goals), cancels))
    plan = []
    for number in range(goals):
        (way,) = rng.choices(list(WAYS), list(WAYS.values()))
        (slo_class,) = rng.choices(list(CLASSES), list(CLASSES.values()))
        if way != 'topic' and rng.random() < SHARE_REFUSED:
            slo_class = UNKNOWN_CLASS
        plan.append(Goal(
            number, way, slo_class,
            prompt=' '.join(rng.choices(VOCABULARY, k=rng.randint(*WORDS))),
            max_tokens=rng.randint(*MAX_TOKENS),
            session_id=(f'conversation {rng.randrange(SESSIONS)}'
                        if rng.random() < SHARE_SESSION else ''),
            choices=('stop', 'go', 'turn left') if rng.random() < SHARE_FORMAT else (),
            temperature=1.0 if rng.random() < SHARE_SAMPLED else 0.0,
            cancel_after=rng.uniform(0, CANCEL_WITHIN) if number in cancelled else None))
    return plan


def kill_instants(goals: int, kills: int, seed: int) -> tuple[list[int], list[int]]:
    """Return after how many ended requests a client, and the node, is killed.

    The kills of the node come early: its memory is compared in the long run after them.
    """
    rng = random.Random(seed + 1)
    clients = sorted(rng.randrange(1, max(goals, 2)) for _ in range(kills))
    until = max(int(goals * NODE_KILLS_UNTIL), 2)
    return clients, sorted(rng.randrange(1, until) for _ in range(kills))


def chunk_faults(numbers: Sequence[int], last: bool) -> tuple[int, int]:
    """Return how many chunks of a request were lost, and how many came out of order.

    `numbers` are their sequence numbers as they came, `last` is whether the last one was there.
    """
    expected = max(numbers, default=-1) + 1 + (not last)
    return (expected - len(set(numbers)),
            sum(later <= earlier for earlier, later in zip(numbers, numbers[1:])))


@dataclass(slots=True)
class Tally:
    """The counts of a soak."""

    sent: int = 0
    ended: int = 0              # with an answer
    unanswered: int = 0
    ended_twice: int = 0
    lost: int = 0               # chunks
    reordered: int = 0          # chunks
    cancels: int = 0            # requests that were cancelled while they were under way
    cut_by_node: int = 0        # under way when the node was killed
    cut_by_client: int = 0      # under way when their client was killed
    longest_wait_s: float = 0.0   # from a request to its answer
    node_kills: int = 0
    client_kills: int = 0
    codes: dict[str, int] = field(default_factory=dict)             # of the answers
    unanswered_ways: dict[str, int] = field(default_factory=dict)   # how those were sent

    @property
    def over(self) -> int:
        """How many requests need no more attention."""
        return self.ended + self.unanswered + self.cut_by_node + self.cut_by_client

    def add(self, row: dict) -> None:
        """Count the line of a client about a request that is over."""
        if row.get('again'):
            self.ended_twice += 1
            return
        self.cancels += row['cancelled']
        self.ended_twice += row['twice']
        if row['fate'] == 'cut':
            self.cut_by_node += 1
            return
        self.lost += row['lost']
        self.reordered += row['reordered']
        if row['fate'] == 'unanswered':
            self.unanswered += 1
            _count(self.unanswered_ways, row['way'])
        else:
            self.ended += 1
            self.longest_wait_s = max(self.longest_wait_s, row['wait_s'])
            _count(self.codes, row['code'])


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def warm_and_last(samples: Iterable[tuple[int, int]]) -> tuple[float, float] | None:
    """Return the memory after warm-up and at the end, bytes; None for a run that is too short.

    `samples` are (requests over, bytes) since the last start of the node. Both are medians, over
    a tenth of the requests after warm-up and over the last tenth.
    """
    samples = list(samples)
    if not samples or samples[-1][0] - samples[0][0] < MIN_GOALS:
        return None
    first, last = samples[0][0], samples[-1][0]
    span = last - first
    warm = first + WARM_UP * span
    before = [size for over, size in samples if warm <= over <= warm + COMPARED * span]
    after = [size for over, size in samples if over >= last - COMPARED * span]
    return (median(before), median(after)) if before and after else None


def missed_bars(figures: dict) -> list[str]:
    """Return the bars that the figures of a soak miss, as sentences."""
    missed = [f'{name.replace("_", " ")}: {figures[name]}'
              for name in ('unanswered', 'ended_twice', 'lost', 'reordered', 'left_live')
              if figures[name]]
    grown = figures['resident_growth']
    if grown is not None and grown >= MAX_GROWTH:
        missed.append(f'resident memory grew by {grown:.1%}, {MAX_GROWTH:.0%} is the bar')
    if figures['not_sent']:
        missed.append(f'{figures["not_sent"]} requests were not sent: give more --minutes')
    return missed
