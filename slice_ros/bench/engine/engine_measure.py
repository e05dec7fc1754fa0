# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Measurements of ``slice_bench engine``: steps beside peers, overhead, memory, floors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import math
from statistics import median, quantiles
import threading
import time

from slice_ros.bench.engine.peer_process import Peer
from slice_ros.engine import Engine, Sampling
from slice_ros.engine.profile import Probe
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.serving import Delivery, Server, ServerConfig
from slice_ros.slo import SloClass
import torch

# 'decode', batch, context; 'prefill', tokens, 0; both in one step: 'mixed', batch, context, tokens
Case = tuple[str, int, int] | tuple[str, int, int, int]

SHARE_BATCH = 8
SHARE_TOKENS = 64
SHARES = ('overhead_share', 'engine_share', 'plan_share')
READ_BYTES = {'cpu': 1 << 28, 'cuda': 1 << 30}  # for the bandwidth: far beyond any cache
_PATIENCE_S = 120.0


def measure(engine: Engine, peers: Sequence[Peer], cases: Sequence[Case], rounds: int,
            done: Callable[[], None]) -> tuple[dict, list[dict]]:
    """Return {case: [ms of each round]} of the engine, and of each peer, which runs none mixed.

    Every round measures each case once, so that a disturbance of the machine affects all alike.
    Before each measured decode step one is run that is not measured, because other cases have
    changed the processor's caches.
    """
    batches = [case[1] + (case[0] == 'mixed') for case in cases if case[0] != 'prefill']
    with Probe(engine, max(batches or [1])) as probe:
        measured = [(timed, {case: [] for case in cases}) for timed in (probe, *peers)]
        for round_ in range(-1, rounds):
            for kind, *size in cases:
                for timed, times in measured[:1] if kind == 'mixed' else measured:
                    run = getattr(timed, kind)
                    if kind == 'decode':
                        run(*size)
                    ms = 1e3 * run(*size)
                    if round_ >= 0:
                        times[kind, *size].append(ms)
                if round_ >= 0:
                    done()
    return measured[0][1], [times for _, times in measured[1:]]


def figures(times: dict, peers: list[dict], case: Case, floor: float) -> dict:
    """Return median, quartiles and floor of a case, and the quickest peer's median."""
    ms = times[case]
    low, middle, high = quantiles(ms, n=4, method='inclusive') if len(ms) > 1 else ms * 3
    peer = min((median(times[case]) for times in peers), default=None)
    return {'ms': middle, 'low_ms': low, 'high_ms': high, 'floor_ms': floor, 'peer_ms': peer,
            'ratio': None if peer is None else middle / peer}


def together(times: dict, batch: int, context: int, tokens: int) -> dict:
    """Return the median of a mixed step, beside the sum of its decode and its chunk alone."""
    ms = median(times['mixed', batch, context, tokens])
    separate = median(times['decode', batch, context]) + median(times['prefill', tokens, 0])
    return {'batch': batch, 'context': context, 'tokens': tokens, 'separate_ms': separate,
            'ms': ms, 'ratio': ms / separate}


def overhead(engine: Engine) -> dict[str, float]:
    """Return the shares of a decode step at batch 8 that are not the model's forward pass.

    A server serves eight requests under the default policy. 'overhead_share' is the time from the
    start of one pass to the start of the next, less the pass itself: planning, bookkeeping,
    detokenizing, and delivery to the thread that shares the processors with the passes.
    'engine_share' is the part of it inside `Engine.step`, 'plan_share' the planning. Medians over
    the steps; NaN when the model ends its answers at once.
    """
    slo = SloClass('measured')
    # Predicted step times with which the policy decodes all requests in each step.
    latency = LatencyModel('any', ((1, 10.0), (2 * SHARE_BATCH, 10.0)), prefill_token_ms=0.1)
    server = Server(engine, latency, ServerConfig(
        classes=(slo,), max_batch=SHARE_BATCH, max_tokens=SHARE_TOKENS))
    ended = threading.Semaphore(0)

    def on_output(delivery: Delivery) -> None:
        if delivery.finish_reason is not None:
            ended.release()

    prompt = engine.encode('The robot drives to the table and')
    with _timed_passes(engine._runner) as passes:
        server.start()
        try:
            for _ in range(SHARE_BATCH):
                server.submit(slo, prompt, SHARE_TOKENS, Sampling(), on_output)
            for _ in range(SHARE_BATCH):
                ended.acquire(timeout=_PATIENCE_S)
            records = [r for r in server.recent_steps() if r.tokens == SHARE_BATCH]
        finally:
            server.stop()
    pairs = [(a, b) for a, b in zip(passes, passes[1:]) if a[2] and b[2]]
    if not pairs:
        return dict.fromkeys(SHARES, math.nan)
    whole = median(b[0] - a[0] for a, b in pairs)
    inside = median(a[1] - a[0] for a, _ in pairs)
    return {'overhead_share': median(b[0] - a[1] for a, b in pairs) / whole,
            'engine_share': max(median(r.engine for r in records) - inside, 0.0) / whole,
            'plan_share': median(r.plan for r in records) / whole}


@contextmanager
def _timed_passes(runner) -> Iterator[list[tuple[float, float, bool]]]:
    """Record (begin, end, whether it decodes `SHARE_BATCH` requests) of each forward pass."""
    passes = []
    run = runner.greedy  # all of these requests are greedy

    def timed(segments):
        begin = time.perf_counter()
        wait = run(segments)

        def waited():
            tokens = wait()
            passes.append((begin, time.perf_counter(), len(segments) == SHARE_BATCH
                           and all(len(s.ids) == 1 for s in segments)))
            return tokens
        return waited
    runner.greedy = timed
    try:
        yield passes
    finally:
        del runner.greedy  # the method of the class is used again


def read_bandwidth(device: str) -> float:
    """Return the bytes per second that a plain sum reads from memory, the best of five."""
    size = READ_BYTES[torch.device(device).type]
    data = torch.ones(size // 4, device=device)
    times = 1 if data.device.type == 'cpu' else 4  # a GPU starts while the host queues more
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(times):
            total = data.sum()
        total.item()
        best = min(best, time.perf_counter() - started)
    return times * size / best


def floor_ms(engine: Engine, bandwidth: float, rows: int = 0, context: int = 0) -> float:
    """Return ms to read the weights once, and `context` cached tokens of `rows` requests."""
    token = engine.info.kv_bytes / engine.info.kv_tokens
    return 1e3 * (engine._runner.info.streamed_bytes + rows * context * token) / bandwidth
