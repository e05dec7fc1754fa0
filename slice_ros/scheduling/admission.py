# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Could a request be served now, and if not, what becomes of it.

The question is put to the policy that would have to serve it: for `slice` the request joins the
live ones, the selection is made, and its place in it says when it would be done; any other policy
is tried out on the latency model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import math

from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy
from slice_ros.scheduling.roll_out import roll_out, STEPS
from slice_ros.scheduling.slice.slice_policy import Slice
from slice_ros.slo import SloClass

DEGRADE = 'degrade:'


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted latencies in seconds; `reason` is empty when every objective would be met."""

    ttft: float
    tpot: float
    completion: float   # at the expected length of the answer
    reason: str

    @property
    def feasible(self) -> bool:
        return not self.reason


def predict(policy: Policy, now: float, request: Request, live: Sequence[Request],
            latency: LatencyModel) -> Prediction:
    """Foretell how `request` would fare if it arrived `now` at `policy`, beside the `live` ones.

    Nothing is reserved. `Slice` is asked itself, from any thread, and left as it was: the
    selection says whether the request can be served. The times are those of a request behind all
    that is selected and worth more per second: its first token waits for their prefills, its
    later ones for all their work; a selected one is kept to its objectives. Any other policy
    promises nothing and is tried out (`roll_out`): give it a new one, which is used up.
    """
    if not isinstance(policy, Slice):
        return _tried(roll_out(policy, now, request, live, latency))
    mine, others = policy.expect(now, request, live, latency)
    slo = request.slo
    rivals = [d for d in others if d.selected and d.worth >= mine.worth]
    decoding = sum(1 for d in rivals if d.request.decoding)
    ttft = mine.prefill + sum(d.prefill for d in rivals)
    if decoding:
        ttft += latency.decode(min(decoding, policy.capacity.max_batch))  # the running step
    tokens = max(round((mine.work - mine.prefill) / mine.unit), 0)
    # The time rivals take of the decoding is theirs until they end, then it is this request's.
    alone = tokens * latency.decode(1, request.context)
    shared = sum(min(d.work - d.prefill, tokens * d.unit) for d in rivals)
    completion = ttft + alone + shared
    tpot = (completion - ttft) / tokens if tokens else 0.0
    if mine.selected and (not tokens or alone / tokens <= slo.tpot):
        # It is kept to its pace, not just as fast as what is left over allows.
        ttft, tpot = min(ttft, slo.ttft), min(tpot, slo.tpot)
        completion = min(ttft + tpot * tokens, slo.deadline)
        return Prediction(ttft, tpot, completion, '')
    return Prediction(ttft, tpot, completion, _reason(slo, ttft, tpot, completion, len(rivals)))


def _tried(request: Request) -> Prediction:
    slo, ttft, tpot = request.slo, request.ttft, request.tpot
    if request.state is not State.FINISHED:
        return Prediction(ttft, tpot, math.nan, f'its answer would not end within {STEPS} steps')
    completion = request.completion
    if request.report().attained:
        return Prediction(ttft, tpot, completion, '')
    return Prediction(ttft, tpot, completion, _reason(slo, ttft, tpot, completion, 0))


def _reason(slo: SloClass, ttft: float, tpot: float, completion: float, rivals: int) -> str:
    missed = [f'{name} would be {value * 1e3:.0f} ms, not {objective * 1e3:.0f} ms'
              for name, value, objective in (
                  ('time to first token', ttft, slo.ttft), ('time per token', tpot, slo.tpot),
                  ('completion', completion, slo.deadline)) if value > objective]
    why = '; '.join(missed) or 'its objectives cannot be held for its whole answer'
    beside = f' (beside {rivals} requests worth more per second of work)' if rivals else ''
    return why + beside


def admit(prediction: Prediction, slo: SloClass, on_infeasible: str,
          classes: Mapping[str, SloClass]) -> SloClass:
    """Return the class that a request of `slo` is served in.

    `on_infeasible` says what a request becomes whose objectives cannot be met: ``'accept'``, it
    is served as best effort; ``'reject'``, it is refused; ``'degrade:NAME'``, it is served in the
    class NAME of `classes`. Raises `RequestError` with INFEASIBLE_SLO where it is refused, and
    ``ValueError`` when `on_infeasible` is none of these.
    """
    check_rule(on_infeasible, classes)
    if prediction.feasible or on_infeasible == 'accept':
        return slo
    if on_infeasible != 'reject':
        return classes[on_infeasible.removeprefix(DEGRADE)]
    raise RequestError(ErrorCode.INFEASIBLE_SLO,
                       f'{slo.name} cannot be met now: {prediction.reason}; come back later, '
                       'or ask for less')


def check_rule(on_infeasible: str, classes: Iterable[str]) -> None:
    """Raise ``ValueError`` when `on_infeasible` is no rule of `admit`."""
    classes = tuple(classes)
    allowed = ('accept', 'reject', *(DEGRADE + name for name in classes))
    if on_infeasible not in allowed:
        raise ValueError(f'admission must be accept, reject or degrade:CLASS with CLASS one of '
                         f'{", ".join(classes)}, not {on_infeasible!r:.80}')
