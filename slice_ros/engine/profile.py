# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Measuring how long steps take, and fitting the latency model that the scheduler plans with."""

from collections.abc import Callable, Sequence
import hashlib
from importlib.metadata import version
import logging
import math
import random
from statistics import median
import time

import numpy as np
from slice_ros.engine.checkpoints.cache_folder import cache_root, keep_file
from slice_ros.engine.cores import machine
from slice_ros.engine.runners.runner import Segment
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.latency_learning import OFF

logger = logging.getLogger(__name__)

BATCHES = (1, 2, 4, 8, 16, 32)
CONTEXTS = (64, 512)             # all batches at the first, the ends at the second
PREFILLS = ((16, 0), (64, 0), (256, 0), (64, 448))  # tokens, after this many cached
MIXED_CHUNKS = 2                 # of the prefills, the shortest also run together with decodes
FORMAT = 3                       # of profiles in the cache: 2 did not know further tokens
BUDGET_S = 2.0                   # for all of it
TRY_S = 0.2                      # to check whether a profile from the cache is still right
_REPEATS = 3
_UNKEPT = 'the disk does not take the latency profile (%s): every start measures it'
_QUICKER = math.exp(-OFF)        # share of predicted step times below which a profile is wrong


class Probe:
    """Times single steps of an engine, in seconds, on slots of its own; a context manager.

    Raises ``ValueError`` when the engine has fewer free slots than `slots`.
    """

    def __init__(self, engine, slots: int) -> None:
        self._engine = engine
        if engine._slots.free < slots:
            raise ValueError(f'{slots} free slots are needed, {engine._slots.free} are left')
        self._slots = [engine._slots.take() for _ in range(slots)]
        engine._forget_dropped()
        self._context = 0
        self._token_s = 0.0
        numbers = random.Random(0)
        self._ids = [numbers.randrange(engine.info.vocab_size)
                     for _ in range(engine.info.max_context)]

    def __enter__(self) -> 'Probe':
        return self

    def __exit__(self, *error: object) -> None:
        for slot in self._slots:
            self._engine._slots.give(slot)
        self._engine._forget_dropped()

    def decode(self, batch: int, context: int) -> float:
        """Return the seconds of a decode step of `batch` requests with `context` tokens each."""
        self._fill(context)
        return self._time(self._decodes(batch, context))

    def prefill(self, tokens: int, context: int = 0) -> float:
        """Return the seconds of a prefill chunk of `tokens` after `context` cached tokens."""
        self._fill(context)
        seconds = self._time([Segment(self._slots[0], context, self._ids[:tokens], True)])
        self._token_s = seconds / tokens
        return seconds

    def mixed(self, batch: int, context: int, tokens: int) -> float:
        """Return the seconds of one step that decodes as `decode` and prefills `tokens`.

        The chunk is that of a request more, with nothing cached: `batch` is less than the slots.
        """
        self._fill(context)
        return self._time([*self._decodes(batch, context),
                           Segment(self._slots[batch], 0, self._ids[:tokens], True)])

    def filling(self, context: int) -> float:
        """Return the predicted seconds to cache `context` tokens, from the last prefill."""
        return self._token_s * max(context - self._context, 0)

    def _decodes(self, batch: int, context: int) -> list[Segment]:
        """Return segments of different tokens: equal ones would all choose the same experts."""
        return [Segment(slot, context, [token], True)
                for slot, token in zip(self._slots[:batch], self._ids)]

    def _fill(self, context: int) -> None:
        if context > self._context:
            self._engine._slots.reserve((slot, context) for slot in self._slots)
            self._engine._runner.fill(self._slots, self._ids[:context])
            self._context = context

    def _time(self, segments: Sequence[Segment]) -> float:
        self._engine._slots.reserve((s.slot, s.start + len(s.ids)) for s in segments)
        self._engine._forget_dropped()
        started = time.perf_counter()
        self._engine._runner.greedy(segments)()  # waits for the device
        return time.perf_counter() - started


def load_or_measure(engine, progress: Callable[[str, float], None]) -> LatencyModel:
    """Return the profile of an engine on this machine: from the cache, or measured and cached.

    A profile from the cache is compared with a few steps. If steps are clearly quicker now, the
    profile was measured on a busy machine, and is measured again. If they are slower, the machine
    is busy now, and the latency model learns that online. Raises ``ValueError`` when too few
    slots are free.
    """
    key = hashlib.sha256(repr((
        FORMAT, engine.info, machine(engine.info.device), version('torch'),
    )).encode()).hexdigest()[:32]
    try:
        path = cache_root() / 'profiles' / f'{key}.yaml'
        known = path.exists()
    except OSError as error:
        path, known = None, False
        logger.warning(_UNKEPT, error)
    if known:
        try:
            model = load_profile(path)
            share = _share(engine, model)
            if share > _QUICKER:
                return model
            logger.info('steps take %.0f %% of what the latency profile predicts: measured anew',
                        100 * share)
        except ValueError as error:
            logger.warning('%s: measured anew', error)
    model = measure(engine, progress)
    if path is not None:
        try:
            keep_file(path, model.save)
        except OSError as error:
            logger.warning(_UNKEPT, error)
    return model


def _share(engine, model: LatencyModel) -> float:
    """Return step times now as a share of those that `model` predicts: the least of two cases."""
    shares = {1: [], _sizes(engine)[1][-1]: []}
    started = time.perf_counter()
    with Probe(engine, max(shares)) as probe:
        for turn in range(1 + _REPEATS):
            if turn and time.perf_counter() - started > TRY_S:
                break
            for batch, seen in shares.items():
                seen.append(probe.decode(batch, 1) / model.decode(batch, batch))
    return min(median(seen[1:] or seen) for seen in shares.values())


def _sizes(engine) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Return prefills (tokens, cached), batches and contexts to measure, in ascending order."""
    room = engine.info.max_context - 1
    prefills = sorted({(min(n, room // 2), min(c, room // 2)) for n, c in PREFILLS})
    limit = min(engine.config.max_batch, engine.info.slots)
    batches = sorted({min(b, limit) for b in BATCHES} | {limit})
    room = min(room, engine.info.kv_tokens // batches[-1] - 1)
    return prefills, batches, sorted({max(min(c, room), 1) for c in CONTEXTS})


def measure(engine, progress: Callable[[str, float], None],
            budget: float = BUDGET_S) -> LatencyModel:
    """Measure decode steps and prefill chunks, and fit the latency model to their medians.

    The cases are measured in turn, several times each, until `budget` seconds are spent. The fit
    covers a case that was not reached; three cases are always measured. Raises ``ValueError``
    when too few slots are free.
    """
    prefills, batches, contexts = _sizes(engine)
    cases = [('prefill', n, c) for n, c in prefills]
    cases += [('decode', b, contexts[0]) for b in batches]
    cases += [('decode', b, contexts[-1]) for b in {1, batches[-1]} if len(contexts) > 1]
    # The chunk needs a slot beside those of the decodes.
    few = {batches[0], batches[len(batches) // 2]} - {batches[-1]}
    chunks = [n for n, cached in prefills if not cached][:MIXED_CHUNKS]
    cases += [('mixed', b, contexts[0], n) for b in few for n in chunks]
    # Ascending contexts: each is filled once.
    cases.sort(key=lambda case: case[2])
    needed = {('prefill', *prefills[0]), ('decode', 1, contexts[0]),
              ('decode', batches[-1], contexts[0])}
    times = {}
    progress('measuring step times', 0.0)
    started = time.perf_counter()
    with Probe(engine, batches[-1]) as probe:
        for turn in range(1 + _REPEATS):
            for done, case in enumerate(cases):
                spent = time.perf_counter() - started
                if spent + probe.filling(case[2]) > budget and (case in times
                                                                or case not in needed):
                    continue
                progress('measuring step times', max(
                    min(spent / budget, 1.0), (turn + done / len(cases)) / (1 + _REPEATS)))
                times.setdefault(case, []).append(1e3 * getattr(probe, case[0])(*case[1:]))
    progress('measuring step times', 1.0)
    # The first time is left out: caches were cold, and memory was taken from the system.
    medians = {case: median(ms[1:] or ms) for case, ms in times.items()}
    return fit(engine.info.model, *({c[1:]: ms for c, ms in medians.items() if c[0] == kind}
                                    for kind in ('decode', 'prefill', 'mixed')))


def fit(name: str, decode: dict[tuple[int, int], float], prefill: dict[tuple[int, int], float],
        mixed: dict[tuple[int, int, int], float] | None = None) -> LatencyModel:
    """Fit a latency model to ms by (batch, context of each request) and by (tokens, context).

    What a further token takes is measured by the shortest prefill, beyond a decode step of one.
    `mixed` has the ms of steps that decode and prefill, by (batch, context, tokens). What their
    parts share is the median of the time they saved, where both parts were measured alone too.
    Coefficients minimise the squared relative error, and none is negative. The decode table has
    the times measured at the smallest context, less the share of the context, and never falls
    with the batch.
    """
    least = min(context for _, context in decode)
    base = {b: ms for (b, c), ms in decode.items() if c == least}
    rest = [(b * (c - least), ms - base[b]) for (b, c), ms in decode.items() if c > least]
    reads = sum(x * x for x, _ in rest)
    slope = max(sum(x * y for x, y in rest) / reads, 0.0) if reads else 0.0
    table, floor = [], 0.0
    for batch, ms in sorted(base.items()):
        floor = max(floor, ms - min(slope * batch * least, ms / 2))
        table.append((batch, round(floor, 4)))
    rows = np.array([[1.0, n, n * (c + n / 2)] for n, c in prefill])
    ms = np.array(list(prefill.values()))
    constant, token, context = _non_negative_fit(rows / ms[:, None], np.ones(len(ms)))
    saved = [decode[b, c] + prefill[n, 0] - ms for (b, c, n), ms in (mixed or {}).items()
             if (b, c) in decode and (n, 0) in prefill]
    (tokens, _), short = min(prefill.items())
    return LatencyModel(name, tuple(table), decode_context_ms=slope, prefill_base_ms=constant,
                        prefill_token_ms=token, prefill_context_ms=context,
                        shared_ms=min(max(median(saved), 0.0), table[0][1]) if saved else 0.0,
                        further_ms=max(short - base.get(1, short), 0.0) / max(tokens - 1, 1))


def _non_negative_fit(rows: np.ndarray, wanted: np.ndarray) -> list[float]:
    # Least squares; while a coefficient is negative, the most negative one is set to zero.
    used = list(range(rows.shape[1]))
    while used:
        found = np.linalg.lstsq(rows[:, used], wanted, rcond=None)[0]
        if found.min() >= 0:
            break
        used.pop(int(found.argmin()))
    result = [0.0] * rows.shape[1]
    for column, value in zip(used, found if used else ()):
        result[column] = float(value)
    return result
