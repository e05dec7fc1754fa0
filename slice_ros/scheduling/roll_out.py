# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Predict a request by serving copies of the live requests under a policy on a latency model."""

from collections.abc import Sequence
from dataclasses import replace

from slice_ros.request import Request, State
from slice_ros.scheduling.contract import check_step, FAULTS, plan_step, raised
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.lengths import AnswerLengths
from slice_ros.scheduling.policy import Policy

STEPS = 2000  # steps at most, so that a roll-out takes no more than some hundredths of a second


def roll_out(policy: Policy, now: float, request: Request, live: Sequence[Request],
             latency: LatencyModel) -> Request:
    """Return a copy of `request` as `policy` would serve it beside copies of the `live` ones.

    Nothing else arrives, and answers have the length expected of their ``max_tokens``. If they
    take more than `STEPS` steps, the copy has not ended. `policy` must be a fresh one, for this
    call alone. Raises `PolicyError` when it fails.
    """
    mine = _copy(request)
    # Copied first: the loop may end a request between two looks at it.
    going = [copy for copy in map(_copy, live) if not copy.ended] + [mine]
    lengths = AnswerLengths()
    ends = {r: round(lengths.estimate(r.generated, r.max_tokens)[1]) for r in going}
    for _ in range(STEPS):
        view = tuple(going)
        step = plan_step(policy, now, view, latency)
        check_step(policy, step, view)
        for evicted in step.evict:
            evicted.evict()
        over = [(r, State.FAILED) for r in step.drop]
        if step.idle and not over:
            break  # it waits for an event that a roll-out does not have
        now += latency.step(*step.shape)
        fed = [(r, 1) for r in step.decode] + [(c.request, c.tokens) for c in step.prefill]
        over += [(r, State.FINISHED) for r, tokens in fed
                 if r.advance(tokens, now) and r.generated >= ends[r]]
        for r, state in over:
            r.end(state, now)
            going.remove(r)
            _finished(policy, r)
        if mine.ended:
            break
    return mine


def _finished(policy: Policy, request: Request) -> None:
    try:
        policy.finished(request)
    except FAULTS as error:
        raise raised(policy, error) from error


def _copy(request: Request) -> Request:
    """Copy a live request, which another thread may be advancing."""
    copy = replace(request, gated=False)
    copy.cached = min(copy.cached, copy.context - 1)
    return copy
