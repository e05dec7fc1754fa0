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
    """Where a request stands in the queues."""

    level: int
    turn: int            # order within the level
    served_at: float     # end of the last step it took part in, or its arrival
    used: float = 0.0    # seconds of this level's quantum used up


class FastServe(Policy):
    """Skip-join MLFQ over `levels` levels; `q0` and `promote_after` are seconds.

    With `swap`, a request that sat out a step has had its KV cache moved to the host, as
    published, and moving it there and back costs `swap_token_ms` per token of context when it
    returns (`overhead`; the default is 28 KiB a token each way over 12 GB/s). Without, it keeps
    its cache for nothing until memory is short. Raises ``ValueError`` naming a bad option.
    """

    def __init__(self, capacity: Capacity, *, q0: float = 0.05, levels: int = 8,
                 promote_after: float = 10.0, swap: bool = False,
                 swap_token_ms: float = 0.005) -> None:
        super().__init__(capacity)
        for name, value in (('q0', q0), ('levels', levels), ('promote_after', promote_after)):
            if not value > 0:
                raise ValueError(f'{name} must be above 0, not {value}')
        if not (swap_token_ms >= 0 and math.isfinite(swap_token_ms)):
            raise ValueError(f'swap_token_ms must be finite and not negative, not {swap_token_ms}')
        self.q0, self.levels, self.promote_after = q0, int(levels), promote_after
        self.swap_token_ms = swap_token_ms if swap else 0.0
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
        return self._moved * self.swap_token_ms / 1e3

    def finished(self, request: Request) -> None:
        self._standing.pop(request, None)

    def on_idle(self) -> None:
        self._ran = ()

    def _charge(self, now: float) -> None:
        """Charge the last step to those who took part in it, and move them down if need be."""
        seconds = now - self._planned_at
        for request in self._ran:
            at = self._standing.get(request)
            if at is None:
                continue
            at.used += seconds
            at.served_at = now
            if at.used >= self.q0 * 2 ** at.level and at.level < self.levels - 1:
                self._enter(at, at.level + 1)

    def _promote(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> None:
        for request in requests:
            at = self._standing.get(request)
            if at is None:
                work, level = latency.prefill(request.pending), 0
                while self.q0 * 2 ** level < work and level < self.levels - 1:
                    level += 1
                at = self._standing[request] = _Standing(level, 0, request.arrival)
                self._enter(at, level)
            elif at.level and now - at.served_at > self.promote_after:
                self._enter(at, 0)

    def _enter(self, at: _Standing, level: int) -> None:
        self._turns += 1
        at.level, at.turn, at.used = level, self._turns, 0.0
