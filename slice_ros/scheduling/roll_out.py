# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Foretell a request by serving it: copies of the live requests, the policy, the latency model."""

from collections.abc import Sequence
from dataclasses import replace

from slice_ros.request import Request, State
from slice_ros.scheduling.contract import check_step, plan_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import AnswerLengths
from slice_ros.scheduling.policy import Policy, Step

STEPS = 2000  # steps looked ahead at most: it has to answer within some hundredths of a second


def roll_out(policy: Policy, now: float, request: Request, live: Sequence[Request],
             latency: LatencyModel) -> Request:
    """Return a copy of `request` as `policy` would serve it beside copies of the `live` ones.

    Nothing else arrives, and answers are as long as is to be expected of ``max_tokens``. The copy
    has not ended where that takes over `STEPS` steps. `policy` is used up: give it a new one.
    """
    mine = _copy(request)
    going = [_copy(r) for r in live if not r.ended] + [mine]
    lengths = AnswerLengths()
    ends = {r: round(lengths.expected(r.generated, r.max_tokens)) for r in going}
    for _ in range(STEPS):
        view = tuple(going)
        step = plan_step(policy, now, view, latency)
        check_step(policy, step, view)
        for evicted in step.evict:
            evicted.evict()
        over = [(r, State.FAILED) for r in step.drop]
        if step.idle and not over:
            break  # it waits for what a roll-out does not know
        now += _seconds(step, latency)
        rows = [(r, 1) for r in step.decode] + [(c.request, c.tokens) for c in step.prefill]
        over += [(r, State.FINISHED) for r, fed in rows
                 if r.advance(fed, now) and r.generated >= ends[r]]
        for r, state in over:
            r.end(state, now)
            going.remove(r)
            policy.finished(r)
        if mine.ended:
            break
    return mine


def _seconds(step: Step, latency: LatencyModel) -> float:
    return latency.step(len(step.decode), sum(r.cached for r in step.decode),
                        [(chunk.tokens, chunk.request.cached) for chunk in step.prefill])


def _copy(request: Request) -> Request:
    """Copy a live request, which another thread may be just about to advance."""
    copy = replace(request, gated=False)
    copy.cached = min(copy.cached, copy.context - 1)
    return copy
