# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Best effort: requests whose objectives are missed, absent or out of reach.

They are served in steps in which no selected request decodes, the highest utility density first.
One that is more useful than all that are selected goes first in any case: as long as they can
spare the time.
"""

from collections.abc import Iterable, Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.policy import PrefillChunk
from slice_ros.scheduling.slice.demand import Demand
from slice_ros.scheduling.slice.limits import chunk_of, largest_chunk, Moment
from slice_ros.scheduling.slice.rate_allocation import Candidate, lone_chunk, YIELD_RATIO


def pursued(demand: Demand, now: float) -> bool:
    """Return whether a deadline can be kept, whatever else has been missed."""
    return now + demand.fastest <= demand.deadline < math.inf


def outranking_step(demand: Demand, selected: Sequence[Demand], candidates: Sequence[Candidate],
                    spare: float, at: Moment) -> tuple[list[Request], list[PrefillChunk]]:
    """Return the decode and the prefills, one in all, of a best-effort `demand` that goes first.

    It is more useful than every selected request. The step takes no longer than the `candidates`
    and first tokens can wait, and than the `spare` seconds of all of them. Those do not count
    where a request of another order of utility may still keep its deadline.
    """
    request = demand.request
    room = min([math.inf, *[c.slack for c in candidates],
                *[d.first_due - at.now - d.prefill for d in selected if not d.request.decoding]])
    utility = max([d.request.slo.utility for d in selected])
    if not pursued(demand, at.now) or request.slo.utility < YIELD_RATIO * utility:
        room = min(room, spare)
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
    prefilled if it comes before the last of the batch.
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
    return batch, [chunk_of(first.request, math.inf, at) if batch else lone_chunk(first, at)]
