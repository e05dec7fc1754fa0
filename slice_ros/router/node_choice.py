# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Which node can meet the objectives of a request soonest. Pure: no ROS, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
import math

from slice_ros.errors import ErrorCode, RequestError
from slice_ros.slo import SloClass

TIE_MS = 10.0       # a prediction is not more exact than a step: within it, the first node wins
TOKEN_BYTES = 4     # of a text, about, for each token of its prompt


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a node predicts for a request now; milliseconds, without the delay of the link."""

    feasible: bool
    ttft_ms: float
    completion_ms: float


def soonest(forecasts: Mapping[str, tuple[Forecast, float]], slo: SloClass) -> str:
    """Return the node that can meet `slo` soonest; if none can, the one that ends soonest.

    `forecasts` has (forecast, round trip in ms) by node, in the order of preference, at least one.
    """
    def ends(name: str) -> float:
        forecast, link_ms = forecasts[name]
        for predicted in (forecast.completion_ms, forecast.ttft_ms):
            if not math.isnan(predicted):
                return predicted + link_ms
        return math.inf

    def meets(name: str) -> bool:
        forecast, link_ms = forecasts[name]
        return (forecast.feasible and (forecast.ttft_ms + link_ms) / 1e3 <= slo.ttft
                and (forecast.completion_ms + link_ms) / 1e3 <= slo.deadline)
    able = [name for name in forecasts if meets(name)] or list(forecasts)
    best = min(map(ends, able))
    return next(name for name in able if ends(name) <= best + TIE_MS)


def objectives(goal, known: SloClass | None) -> SloClass:
    """Return the objectives of a goal: its own where it sets some, else those of its class.

    `known` is its class as the nodes report it; None = no node has reported it. Raises
    `RequestError` for values that are none.
    """
    def objective(field: str) -> float:
        value = getattr(goal, field)
        if math.isnan(value) or value < 0:
            raise RequestError(
                ErrorCode.INVALID_REQUEST, f'{field} is {value}: give milliseconds above 0, 0 for '
                'the objective of the class, or inf for none')
        if value == 0:
            return 0.0 if known is None else getattr(known, field)
        return 0.0 if math.isinf(value) else value
    try:
        return SloClass(goal.slo_class, objective('ttft_ms'), objective('tpot_ms'),
                        objective('deadline_ms'), 1.0 if known is None else known.utility)
    except ValueError as error:
        raise RequestError(ErrorCode.UNKNOWN_SLO_CLASS, str(error)) from error


def left_of(objective_ms: float, spent_ms: float) -> float:
    """Return the field of a goal for what is left of an objective (0 = none) after a time.

    One that has passed is none any more: nothing can be gained by it.
    """
    left = objective_ms - spent_ms
    return left if objective_ms and left > 0 else math.inf


def prompt_tokens(goal) -> int:
    """Return about how many tokens the prompt of a goal has, at least 1."""
    size = len(goal.prompt) + sum(len(message.content) for message in goal.messages)
    return 1 + size // TOKEN_BYTES


def bucket(goal) -> tuple:
    """Return what requests have in common that one answer of ~/check_admission is good for."""
    return (goal.slo_class, goal.ttft_ms, goal.tpot_ms, goal.deadline_ms,
            prompt_tokens(goal).bit_length(), int(goal.max_tokens).bit_length(),
            goal.reasoning, int(goal.reasoning_budget).bit_length())
