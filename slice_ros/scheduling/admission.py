# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a request can be served now, and what becomes of it if not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
import math

from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request, State
from slice_ros.scheduling.contract import ask_prediction, FAULTS, raised
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Policy
from slice_ros.scheduling.prediction import missed_objectives, Prediction
from slice_ros.scheduling.roll_out import roll_out, STEPS
from slice_ros.slo import SloClass

DEGRADE = 'degrade:'
NOTHING_MS = 1e-3   # is left of an objective, milliseconds; 0 would be none


def predict(policy: Policy, now: float, request: Request, live: Sequence[Request],
            latency: LatencyModel) -> Prediction:
    """Predict the times of `request` if it arrived `now` at `policy`, beside the `live` ones.

    Any thread may call this; it reserves and changes nothing. A policy that cannot predict while
    it plans is replaced by a fresh one, which serves copies of the requests (`roll_out`). Raises
    `PolicyError` when the policy fails.
    """
    prediction = ask_prediction(policy, now, request, live, latency)
    if prediction is not None:
        return prediction
    try:
        fresh = policy.fresh()
    except FAULTS as error:
        raise raised(policy, error) from error
    served = roll_out(fresh, now, request, live, latency)
    slo, ttft, tpot = served.slo, served.ttft, served.tpot
    if served.state is State.FAILED:
        return Prediction(ttft, tpot, math.nan, f'{policy.name} would refuse it')
    if served.state is not State.FINISHED:
        return Prediction(ttft, tpot, math.nan, f'its answer would not end within {STEPS} steps')
    completion = served.completion
    reason = ('' if served.report().attained
              else missed_objectives(slo, ttft, tpot, completion))
    return Prediction(ttft, tpot, completion, reason)


def remaining(slo: SloClass, before: float) -> SloClass:
    """Return a class whose objectives are what is left of those of `slo` after some seconds."""
    ms = before * 1e3
    set_ones = [name for name in ('ttft_ms', 'deadline_ms') if before and getattr(slo, name)]
    return replace(slo, **{name: max(getattr(slo, name) - ms, NOTHING_MS) for name in set_ones})


def encoding_order(slo: SloClass, arrival: float, ready: float) -> tuple:
    """Return the place of a request among those whose images wait: the least is encoded first.

    Those that are late anyway, if they are encoded at `ready`, come last; then utility decides,
    and what is due first.
    """
    due = arrival + min(slo.ttft, slo.deadline)
    return ready > due, -slo.utility, due, arrival


def delayed(prediction: Prediction, before: float) -> Prediction:
    """Return the times of a request that waits some seconds before `prediction` begins."""
    if not before:
        return prediction
    reason = prediction.reason and (
        f'{prediction.reason}, after {before * 1e3:.0f} ms in which its images are encoded')
    return Prediction(prediction.ttft + before, prediction.tpot, prediction.completion + before,
                      reason)


def admit(prediction: Prediction, slo: SloClass, on_infeasible: str,
          classes: Mapping[str, SloClass]) -> SloClass:
    """Return the class that a request of `slo` is served in.

    `on_infeasible` applies when its objectives cannot be met. ``'accept'``: it is served as best
    effort; ``'reject'``: it is refused; ``'degrade:NAME'``: it is served in the class NAME of
    `classes`. Raises `RequestError` with INFEASIBLE_SLO when it is refused, and ``ValueError``
    when `on_infeasible` is none of these.
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
