# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The measurements of ``slice_bench ros``; each function returns its field of the JSON."""

from collections.abc import Callable, Iterable
from itertools import pairwise
import math
import random
import threading
import time

from slice_ros.bench.processes import NodeProcess
from slice_ros.bench.ros.ros_caller import Caller, cpu_seconds
from slice_ros.serving.stats import percentile

PROMPT = 'Tell me a long story about a robot that explores a warehouse.'
CONTROL = 'An obstacle is two metres ahead. Answer with one word: stop or go?'
STREAM_TOKENS = 400      # tokens of one answer; short enough for the default context
DIALOGUES = 12           # goals that stream while control is asked
PACE = 0.1               # seconds a token where rates are measured
SETTLE = 1.0             # seconds after a change before anything counts
CONTROL_EVERY = (0.5, 1.5)   # seconds between two control goals, at random
NONE = float('inf')      # no objective

Advance = Callable[[float], None]


def delivery(caller: Caller, streams: int, tokens: int, advance: Advance) -> dict[str, float]:
    """Stream `tokens` in all, `streams` answers at a time."""
    length = min(STREAM_TOKENS, math.ceil(tokens / streams))
    ids: list[str] = []
    live: set[str] = set()
    shares, asked, received = [], math.ceil(tokens / length), caller.received
    moved = time.monotonic()
    while len(ids) < asked or live:
        while len(ids) < asked and len(live) < streams:
            ids.append(caller.publish(PROMPT, max_tokens=length))
            live.add(ids[-1])
        time.sleep(0.25)
        if len(live) == streams and 'scheduler' in caller.health:
            shares.append(float(caller.health['scheduler']['delivery']))
        live = {i for i in live if not caller.finished(i)}
        if caller.received > received:
            moved = time.monotonic()
        elif time.monotonic() - moved > 60:
            break  # last chunks were lost: that is counted below
        advance(caller.received - received)
        received = caller.received
    answers = [caller.tokens.get(i, []) for i in ids]
    delays = [token.delay for one in answers for token in one]
    numbers = [[token.number for token in one] for one in answers]
    expected = [max(n, default=length - 1) + 1 for n in numbers]
    return {
        'loop_share': percentile(shares, 0.5),
        'latency_p50_ms': percentile(delays, 0.5) * 1e3,
        'latency_p99_ms': percentile(delays, 0.99) * 1e3,
        'tokens': sum(expected),
        'lost': sum(n - len(set(seen)) for n, seen in zip(expected, numbers)),
        'reordered': sum(b <= a for one in numbers for a, b in zip(one, one[1:]))}


def paced_delivery(caller: Caller, streams: int, seconds: float, advance: Advance
                   ) -> dict[str, float]:
    """Stream `streams` answers at a time at `PACE`, which leaves the processor idle in between.

    The node has to be in mode paced; the figures belong to the field of `delivery`.
    """
    ids = caller.stream(streams, seconds, PROMPT, advance, max_tokens=STREAM_TOKENS,
                        tpot_ms=PACE * 1e3)
    delays = [token.delay for i in ids for token in caller.tokens.get(i, ())]
    if not delays:
        raise ValueError('no tokens came')
    return {'paced_latency_p50_ms': percentile(delays, 0.5) * 1e3,
            'paced_latency_p99_ms': percentile(delays, 0.99) * 1e3, 'paced_tokens': len(delays)}


def paced(caller: Caller, seconds: float, advance: Advance) -> dict[str, float]:
    """Stream one answer after the other at `PACE`; the node has to be in mode paced."""
    ids = caller.stream(1, seconds, PROMPT, advance, max_tokens=STREAM_TOKENS,
                        tpot_ms=PACE * 1e3)
    # The last answer was cancelled: its last chunk is no token.
    times = [[t.at for t in caller.tokens[i]] for i in ids if i in caller.tokens]
    times[-1].pop()
    gaps = [b - a for one in times for a, b in pairwise(one)]
    if not gaps:
        raise ValueError('no tokens came')
    return {'rate_error': abs(PACE * _rate(times) - 1),
            'jitter_p99_ms': percentile([abs(gap - PACE) for gap in gaps], 0.99) * 1e3,
            'tokens': len(gaps) + len(times)}


class SimulatedClock:
    """Publishes /clock every 5 ms, `speed` times as fast as real time."""

    def __init__(self, publisher) -> None:
        self.speed = 1.0
        self._publisher, self._over = publisher, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from rosgraph_msgs.msg import Clock
        clock, now, before = Clock(), 100.0, time.monotonic()
        while not self._over.wait(0.005):
            passed = time.monotonic() - before
            before += passed
            now += passed * self.speed
            clock.clock.sec, clock.clock.nanosec = divmod(int(now * 1e9), 10**9)
            self._publisher.publish(clock)

    def close(self) -> None:
        self._over.set()
        self._thread.join(5.0)


def sim_time(caller: Caller, seconds: float, advance: Advance) -> dict[str, float]:
    """Measure rates under /clock at half and double speed, as a share of `PACE`; and stopped.

    The node has to be in mode paced, and to use simulated time.
    """
    simulated = SimulatedClock(caller.clients['clock'])
    ids: list[str] = []

    def keep_streaming() -> None:
        ids.extend(caller.stream(1, 2 * seconds + 4 * SETTLE + 2.0, PROMPT,
                                 max_tokens=STREAM_TOKENS, tpot_ms=PACE * 1e3, ttft_ms=NONE))
    streamer = threading.Thread(target=keep_streaming, daemon=True)
    streamer.start()
    result = {}
    try:
        for name, speed in (('half', 0.5), ('double', 2.0), ('stopped', 0.0)):
            simulated.speed = speed
            _sleep(SETTLE, advance)
            begin = time.monotonic()
            _sleep(seconds if speed else 1.0, advance)
            answers = [[token.at for token in tuple(one) if begin < token.at]
                       for one in tuple(caller.tokens.values())]
            result[name] = _rate(answers) * PACE if speed else sum(map(len, answers))
        simulated.speed = 1.0
        streamer.join(120.0)
    finally:
        simulated.close()
    return result


def _rate(answers: Iterable[list[float]]) -> float:
    """Return the tokens a second within answers, given the times of their tokens."""
    answers = [times for times in answers if len(times) > 1]
    return (sum(len(times) - 1 for times in answers)
            / max(sum(times[-1] - times[0] for times in answers), 1e-9))


def _sleep(seconds: float, advance: Advance) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.25))
        advance(min(left, 0.25))


def energy(caller: Caller, node: NodeProcess, streams: int, seconds: float,
           advance: Advance) -> dict[str, float]:
    """Measure the processor time of the node, with `streams` answers at `PACE` and unpaced."""
    result = {}
    for mode in ('paced', 'work_conserving'):
        caller.set_parameter('rate_control.mode', mode)
        before, received, begin = cpu_seconds(node), caller.received, time.monotonic()
        caller.stream(streams, seconds, PROMPT, advance, max_tokens=STREAM_TOKENS,
                      tpot_ms=PACE * 1e3)
        cpu, wall = cpu_seconds(node) - before, time.monotonic() - begin
        result[f'{mode}_s_per_token'] = cpu / max(caller.received - received, 1)
        result[f'{mode}_cores'] = cpu / wall
    return result


def control_under_dialogue(caller: Caller, trials: int, advance: Advance) -> dict[str, int]:
    """Send `trials` control goals while `DIALOGUES` dialogues stream."""
    dialogues: list = []
    over = threading.Event()

    def keep_streaming() -> None:
        while not over.is_set():
            dialogues[:] = [(h, f) for h, f in dialogues if not f.done()]
            while len(dialogues) < DIALOGUES:
                handle = caller.send('dialogue', PROMPT, STREAM_TOKENS)
                dialogues.append((handle, handle.get_result_async()))
            over.wait(0.1)
    streamer = threading.Thread(target=keep_streaming, daemon=True)
    streamer.start()
    reports: list = []
    try:
        for _ in range(trials):
            time.sleep(random.uniform(*CONTROL_EVERY))
            handle = caller.send('control', CONTROL, 16)
            reports.append(caller.get(handle.get_result_async()).result.report)
            advance(1)
    finally:
        over.set()
        streamer.join(30.0)
        cancels = [handle.cancel_goal_async() for handle, _ in dialogues]
        for cancel in cancels:
            caller.get(cancel)
    return {'attained': sum(report.attained for report in reports), 'trials': trials,
            'ttft_p99_ms': _worst(report.ttft_ms for report in reports),
            'tpot_p99_ms': _worst(report.tpot_ms for report in reports)}


def _worst(values: Iterable[float]) -> float:
    return percentile(values, 0.99)
