# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the objectives of a request leave: whether it can attain, and its time for each token.

Shared by the rivals that look at objectives. All times are seconds on the clock of the requests.
"""

import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel


def can_attain(request: Request, now: float, latency: LatencyModel) -> bool:
    """Return whether no objective is missed for good, were it served alone from `now` on.

    TPOT is a mean, so that a late answer can catch up until it has ``max_tokens``; no guess of
    its length enters here.
    """
    slo = request.slo
    if not request.decoding:
        now += latency.prefill(request.pending, request.cached)
    if not request.generated:
        return now <= request.arrival + min(slo.ttft, slo.deadline)
    left = max(request.max_tokens - request.generated, 1)
    alone = latency.decode(1, request.context)
    return (request.ttft <= slo.ttft and now + alone <= request.arrival + slo.deadline
            and now + left * alone <= last_due(request, now, request.generated + left))


def last_due(request: Request, now: float, length: float) -> float:
    """Return when the last token of an answer of `length` tokens is due; infinite if it never is.

    It keeps the mean time per token and the deadline; the first token of a waiting request counts
    as coming `now`.
    """
    slo = request.slo
    first = request.first_token_at if request.generated else now
    span = math.inf if slo.tpot == math.inf else (length - 1) * slo.tpot
    return min(first + span, request.arrival + slo.deadline)


def pace(request: Request, now: float, length: float) -> float:
    """Return the seconds per token that an answer of `length` tokens can afford from now on."""
    return (last_due(request, now, length) - now) / max(length - request.generated, 1)
