# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""FastServe: a skip-join multi-level feedback queue, preempting at every step (arXiv 2305.05920).

The quantum of level p is ``q0 * 2^p``. A request joins the first level whose quantum covers its
prefill, moves down when it has used its quantum up, and is promoted to the top after a long wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.baselines.orca import prefill_in_order
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, Step


@dataclass(slots=True)
class _Standing:
    """The place of a request in the queues."""

    level: int
    turn: int            # order within the level
    served_at: float     # end of the last step it took part in, or its arrival
    used: float = 0.0    # seconds of this level's quantum used up


class FastServe(Policy):
    """Skip-join MLFQ (arXiv 2305.05920).

    With `swap`, the KV cache of a request that sits a step out moves to the host, as published;
    moving it there and back costs `swap_token_ms` per token of context when the request returns
    (`overhead`). Without, keeping the cache is free until memory is short.
    """

    @dataclass(frozen=True, slots=True)
    class Options(Policy.Options):
        """Raises ``ValueError`` naming the option that is not positive (or negative, or NaN)."""

        q0: float = 0.05               # quantum of the first level, seconds
        levels: int = 8                # queues
        promote_after: float = 10.0    # seconds of waiting after which a request enters level 0
        swap: bool = False             # whether sitting out moves the KV cache to the host
        swap_token_ms: float = 0.005   # per token both ways: 28 KiB each way over 12 GB/s

        def __post_init__(self) -> None:
            for name in ('q0', 'levels', 'promote_after'):
                value = getattr(self, name)
                if not value > 0:
                    raise ValueError(f'{name} must be above 0, not {value}')
            cost = self.swap_token_ms
            if not (cost >= 0 and math.isfinite(cost)):
                raise ValueError(f'swap_token_ms must be finite and not negative, not {cost}')

    def __init__(self, capacity: Capacity, options: Options | None = None) -> None:
        super().__init__(capacity, options)
        self._standing: dict[Request, _Standing] = {}
        self._ran: tuple[Request, ...] = ()
        self._planned_at = 0.0
        self._turns = 0
        self._moved = 0

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        self._charge(now)
        self._promote(now, requests, latency)
        standing = self._standing
        ranked = sorted(requests, key=lambda r: (standing[r].level, standing[r].turn))
        batch = [request for request in ranked if not request.gated][:self.capacity.max_batch]
        decode = [request for request in batch if request.ready]
        chunks = prefill_in_order(batch, self.capacity.prefill_chunk)
        step = fit_step(self.capacity, ranked, decode, chunks)
        before = set(self._ran)
        self._moved = sum(r.context for r in step.decode if r not in before)
        self._ran = step.decode + tuple(chunk.request for chunk in step.prefill)
        self._planned_at = now
        return step

    def overhead(self) -> float:
        return self._moved * self.options.swap_token_ms / 1e3 if self.options.swap else 0.0

    def finished(self, request: Request) -> None:
        self._standing.pop(request, None)

    def on_idle(self) -> None:
        self._ran = ()

    def _charge(self, now: float) -> None:
        """Charge the last step to its requests, and move those down whose quantum is used up."""
        seconds = now - self._planned_at
        for request in self._ran:
            at = self._standing.get(request)
            if at is None:
                continue
            at.used += seconds
            at.served_at = now
            if at.used >= self._quantum(at.level) and at.level < self.options.levels - 1:
                self._enter(at, at.level + 1)

    def _promote(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> None:
        for request in requests:
            at = self._standing.get(request)
            if at is None:
                work, level = latency.prefill(request.pending), 0
                while self._quantum(level) < work and level < self.options.levels - 1:
                    level += 1
                at = self._standing[request] = _Standing(level, 0, request.arrival)
                self._enter(at, level)
            elif at.level and now - at.served_at > self.options.promote_after:
                self._enter(at, 0)

    def _quantum(self, level: int) -> float:
        return self.options.q0 * 2 ** level

    def _enter(self, at: _Standing, level: int) -> None:
        self._turns += 1
        at.level, at.turn, at.used = level, self._turns, 0.0
