# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Best effort: requests whose objectives are missed, absent or out of reach.

They are served in steps in which no selected request decodes, the highest utility density first.
One that has missed an objective, and is more useful than all that are selected, goes first in any
case: as long as the selected ones can spare the time.
"""

from collections.abc import Iterable, Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.scheduling.slice.limits import chunk_of, largest_chunk, MAX_GAP, Moment
from slice_ros.scheduling.slice.rate_allocation import Candidate, lone_chunk


def missed_step(best_effort: Iterable[Demand], selected: Sequence[Demand],
                candidates: Sequence[Candidate], spare: float, at: Moment
                ) -> tuple[list[Request], list[PrefillChunk]]:
    """Return the decode and the prefills, one in all, of a missed request that goes first.

    It is more useful than every selected request, and the step takes no longer than the `spare`
    seconds of all of them and than the `candidates` and first tokens can wait.
    """
    utility = max([d.request.slo.utility for d in selected], default=0.0)
    room = min([spare, *[c.slack for c in candidates],
                *[d.first_due - at.now - d.prefill for d in selected if not d.request.decoding]])
    request = next((d.request for d in best_effort if d.missed and not d.request.gated
                    and d.request.slo.utility > utility), None)
    if request is None:
        return [], []
    if request.decoding:
        return [request] if at.limits.times[0] <= room else [], []
    # It is late: no time for the fixed costs of small chunks, if there is room for large ones.
    chunks = [chunk for chunk in (largest_chunk(request, at), chunk_of(request, room, at))
              if at.latency.prefill(chunk.tokens, request.cached) <= room]
    return [], chunks[:1]


def best_effort_step(demands: Iterable[Demand], at: Moment
                     ) -> tuple[list[Request], list[PrefillChunk]]:
    """Return which of `demands` decode in a best-effort step, and the prefill beside or before it.

    `demands` are in order of utility density. The batch is as large as is efficient, and larger
    where one more request adds little time. The first request that waits for its prefill is
    prefilled if it comes before the last of the batch, unless that would make the gap of a
    started request too long.
    """
    batch: list[Request] = []
    first = None
    for demand in demands:
        if demand.request.ready:
            batch.append(demand.request)
        elif first is None and not demand.request.decoding:
            first = demand
        if len(batch) == at.limits.best_effort_batch:
            break
    if first is None:
        return batch, []
    chunk = chunk_of(first.request, math.inf, at) if batch else lone_chunk(first, at)
    end = at.now + at.latency.prefill(chunk.tokens, first.request.cached)
    end += at.latency.decode(len(batch))
    late = any(end > r.last_token_at + MAX_GAP * r.slo.tpot for r in batch)
    return batch, [] if late else [chunk]
