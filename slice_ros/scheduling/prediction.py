# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The predicted times of a request, and the sentence that names the objectives they miss."""

from dataclasses import dataclass

from slice_ros.slo import SloClass


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


def missed_objectives(slo: SloClass, ttft: float, tpot: float, completion: float) -> str:
    """Return which objectives of `slo` these times (seconds) miss, and by how much."""
    missed = [f'{name} would be {value * 1e3:.0f} ms, not {objective * 1e3:.0f} ms'
              for name, value, objective in (
                  ('time to first token', ttft, slo.ttft), ('time per token', tpot, slo.tpot),
                  ('completion', completion, slo.deadline)) if value > objective]
    return '; '.join(missed) or 'its objectives cannot be kept for its whole answer'
