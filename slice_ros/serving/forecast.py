"""Foretell how a request would fare if it came now, from the latency model and the queue.

The request is taken to share the accelerator with every live request of at least its own worth
per unit of rate (``utility * TPOT``, the order in which the scheduler selects): those decode
beside it, and what is left of their prompts is prefilled before its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predicted latencies in seconds; `reason` is empty when every objective would be met."""

    ttft: float
    tpot: float
    completion: float   # if all of max_tokens are used
    reason: str

    @property
    def feasible(self) -> bool:
        return not self.reason


def forecast(now: float, request: Request, live: Sequence[Request], latency: LatencyModel,
             max_batch: int) -> Forecast:
    """Predict a `request` that arrives `now` beside the `live` ones."""
    slo = request.slo
    rivals = [r for r in live if _worth(r) >= _worth(request)]
    step = latency.decode(
        min(len(rivals) + 1, max_batch), sum(r.context for r in rivals) + request.context)
    # More rivals than rows in a step take turns.
    tpot = step * max(1.0, (len(rivals) + 1) / max_batch)
    ahead = sum(latency.prefill(r.pending, r.cached) for r in rivals if not r.decoding)
    ttft = ahead + step + latency.prefill(request.prompt_tokens)
    completion = ttft + tpot * (request.max_tokens - 1)
    missed = [
        f'{name} would be {value * 1e3:.0f} ms, not {objective * 1e3:.0f} ms'
        for name, value, objective in (
            ('time to first token', ttft, slo.ttft), ('time per token', tpot, slo.tpot),
            ('completion', completion, slo.deadline))
        if value > objective]
    reason = '; '.join(missed)
    if missed:
        reason += f' (beside {len(rivals)} requests of at least its worth)'
    return Forecast(ttft, tpot, completion, reason)


def _worth(request: Request) -> float:
    slo = request.slo
    return slo.utility * (slo.tpot if slo.tpot < math.inf else 1.0)
