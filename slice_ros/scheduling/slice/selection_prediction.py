# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The predicted times of a request, from its place in the selection."""

from collections.abc import Sequence

from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.prediction import missed_objectives, Prediction
from slice_ros.scheduling.slice.demand import Demand


def prediction_of(mine: Demand, others: Sequence[Demand], latency: LatencyModel,
                  max_batch: int) -> Prediction:
    """Predict the request of `mine` after a selection among it and `others`; changes nothing.

    Its rivals are the selected requests of at least its utility density. Its first token waits
    for their prefills, its later tokens for all their work; if it is selected itself, its times
    are no later than its objectives.
    """
    request, slo = mine.request, mine.request.slo
    rivals = [d for d in others if d.selected and d.density >= mine.density]
    decoding = sum(1 for d in rivals if d.request.decoding)
    ttft = mine.prefill + sum(d.prefill for d in rivals)
    if decoding:
        ttft += latency.decode(min(decoding, max_batch))  # the running step
    tokens = max(round((mine.work - mine.prefill) / mine.token_cost), 0)
    # Rivals take their share of the decoding until they end; the rest is this request's.
    alone = tokens * latency.decode(1, request.context)
    shared = sum(min(d.work - d.prefill, tokens * d.token_cost) for d in rivals)
    completion = ttft + alone + shared
    tpot = (completion - ttft) / tokens if tokens else 0.0
    if mine.selected and (not tokens or alone / tokens <= slo.tpot):
        # Selected: it is decoded at the rate of its objectives, not only with what is left.
        ttft, tpot = min(ttft, slo.ttft), min(tpot, slo.tpot)
        return Prediction(ttft, tpot, min(ttft + tpot * tokens, slo.deadline), '')
    reason = missed_objectives(slo, ttft, tpot, completion)
    if rivals:
        reason += f' (beside {len(rivals)} requests of higher utility density)'
    return Prediction(ttft, tpot, completion, reason)
