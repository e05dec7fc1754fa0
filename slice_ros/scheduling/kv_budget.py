# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Keep a step within the KV cache: slots, tokens, and who gives theirs up."""

from collections.abc import Sequence

from slice_ros.request import Request
from slice_ros.scheduling.policy import Capacity, PrefillChunk, Step


def fit_step(capacity: Capacity, ranked: Sequence[Request], decode: Sequence[Request],
             prefill: Sequence[PrefillChunk] = ()) -> Step:
    """Return the step with as many of its rows as the KV cache can hold.

    `ranked` are all live requests, the most useful first. A row that does not fit takes the
    cache of the least useful holder below it (``Step.evict``); where there is none it sits out.
    A prefill that starts is held to its whole context, so that it is not begun in vain. The most
    useful request always fits, given that its prompt and ``max_tokens`` fit an empty cache.
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
    rows = sorted([(request, 1, None) for request in decode]
                  + [(c.request, c.request.pending, c) for c in prefill],
                  key=lambda row: rank[row[0]])
    holders = [request for request in ranked if request.cached]
    evicted: set[Request] = set()
    kept, chunks = [], []
    for request, need, chunk in rows:
        if request in evicted:
            continue
        slot = not request.cached
        while (slot and slots < 1) or tokens < need:
            if not holders or rank[holders[-1]] <= rank[request]:
                break
            victim = holders.pop()
            evicted.add(victim)
            slots += 1
            tokens += victim.cached
        else:
            slots -= slot
            tokens -= need
            chunks.append(chunk) if chunk else kept.append(request)
    return Step(decode=tuple(kept), prefill=tuple(chunks), evict=tuple(evicted))
