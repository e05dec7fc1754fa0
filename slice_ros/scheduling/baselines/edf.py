# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Earliest deadline first (Liu and Layland, JACM 20(1), 1973), token by token.

What is due of a request: its first token by the TTFT; then its next token, by
``first token + tokens so far * TPOT``; each of them by the deadline at the latest. The earliest
due is served first. What has missed an objective for good comes after all that can still attain,
as usual where a late result is useless (firm deadlines). No length is guessed.
"""

from collections.abc import Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.baselines.time_left import can_attain
from slice_ros.scheduling.kv_budget import fit_step
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy, PrefillChunk, Step


def due(request: Request) -> float:
    """Return when the next token of a request is due, in seconds; infinite without objectives."""
    slo = request.slo
    if not request.generated:
        return request.arrival + min(slo.ttft, slo.deadline)
    span = math.inf if slo.tpot == math.inf else request.generated * slo.tpot
    return min(request.first_token_at + span, request.arrival + slo.deadline)


class Edf(Policy):
    """The earliest due, and as many behind it in order as the step has time for.

    Another one joins while the step ends by the time that the first one is due. Where that is
    too late already, it joins where this makes them less late in all: with b in the step, which
    it lengthens by d, when ``(b + 1) d`` is less than its own step afterwards would take.
    """

    def plan(self, now: float, requests: Sequence[Request], latency: LatencyModel) -> Step:
        ranked = sorted(requests, key=lambda r: (not can_attain(r, now, latency), due(r)))
        decode: list[Request] = []
        chunks: list[PrefillChunk] = []
        parts: list[tuple[int, int]] = []
        context, budget, seconds, earliest = 0, self.capacity.prefill_chunk, 0.0, math.inf
        for request in ranked:
            joined = len(decode) + len(chunks)
            if joined == self.capacity.max_batch:
                break
            if request.gated or not request.decoding and budget < 1:
                continue
            tokens = 1 if request.decoding else min(request.pending, budget)
            if request.decoding:
                after = latency.step(len(decode) + 1, context + request.cached, parts)
                alone = latency.decode(1, request.cached)
            else:
                after = latency.step(len(decode), context, [*parts, (tokens, request.cached)])
                alone = latency.prefill(tokens, request.cached)
            if joined and now + after > earliest and (joined + 1) * (after - seconds) >= alone:
                if request.decoding:
                    break
                budget = 0   # decodes behind it may still have the time
                continue
            if request.decoding:
                decode.append(request)
                context += request.cached
            else:
                chunks.append(PrefillChunk(request, tokens))
                parts.append((tokens, request.cached))
                budget -= tokens
            earliest = min(earliest, due(request))
            seconds = after
        return fit_step(self.capacity, ranked, decode, chunks)
