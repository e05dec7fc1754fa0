# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Keep a step within the KV cache: its slots, its tokens, and which requests are evicted."""

from collections.abc import Sequence

from slice_ros.request import Request
from slice_ros.scheduling.policy import Capacity, PrefillChunk, Step


def fit_step(capacity: Capacity, ranked: Sequence[Request], decode: Sequence[Request],
             prefill: Sequence[PrefillChunk] = ()) -> Step:
    """Return the step with as many of its requests as fit the KV cache.

    `ranked` are all live requests, the most useful first. A request that does not fit takes the
    cache of the least useful cached request below it (``Step.evict``), or else sits the step out.
    A prefill counts with all its pending tokens from the start, so that it can be completed. The
    most useful request always fits, if its prompt and ``max_tokens`` fit an empty cache.
    """
    slots, tokens = capacity.slots, capacity.kv_tokens
    for request in ranked:
        if request.cached:
            slots -= 1
            tokens -= request.cached
    starting = sum(not chunk.request.cached for chunk in prefill)
    named = [*decode, *[chunk.request for chunk in prefill]]
    if starting <= slots and sum([request.pending for request in named]) <= tokens:
        return Step(decode=tuple(decode), prefill=tuple(prefill))

    rank = {request: i for i, request in enumerate(ranked)}
    wanted = sorted([(request, request.pending, None) for request in decode]
                    + [(c.request, c.request.pending, c) for c in prefill],
                    key=lambda want: rank[want[0]])
    cached = [request for request in ranked if request.cached]
    evicted: set[Request] = set()
    kept, chunks = [], []
    for request, need, chunk in wanted:
        if request in evicted:
            continue
        slot, keep, free, room = not request.cached, len(cached), slots, tokens
        while ((slot and free < 1 or room < need)
               and keep and rank[cached[keep - 1]] > rank[request]):
            keep -= 1
            free += 1
            room += cached[keep].cached
        if slot and free < 1 or room < need:
            continue  # nobody is evicted in vain
        evicted.update(cached[keep:])
        del cached[keep:]
        slots, tokens = free - slot, room - need
        chunks.append(chunk) if chunk else kept.append(request)
    return Step(decode=tuple(kept), prefill=tuple(chunks), evict=tuple(evicted))
