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
    if starting <= slots and len(decode) + sum(c.request.pending for c in prefill) <= tokens:
        return Step(decode=tuple(decode), prefill=tuple(prefill))

    rank = {request: i for i, request in enumerate(ranked)}
    wanted = sorted([(request, 1, None) for request in decode]
                    + [(c.request, c.request.pending, c) for c in prefill],
                    key=lambda want: rank[want[0]])
    cached = [request for request in ranked if request.cached]
    evicted: set[Request] = set()
    kept, chunks = [], []
    for request, need, chunk in wanted:
        if request in evicted:
            continue
        slot = not request.cached
        while (slot and slots < 1) or tokens < need:
            if not cached or rank[cached[-1]] <= rank[request]:
                break
            victim = cached.pop()
            evicted.add(victim)
            slots += 1
            tokens += victim.cached
        else:
            slots -= slot
            tokens -= need
            chunks.append(chunk) if chunk else kept.append(request)
    return Step(decode=tuple(kept), prefill=tuple(chunks), evict=tuple(evicted))
