# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Service-level objectives: what a class of requests asks for, and whether it was attained.

Objectives are given in milliseconds, as people write them; every other time is in seconds.
An objective of 0 means "none".
"""

from dataclasses import dataclass, fields
import math
import re

_NAME = re.compile(r'[a-zA-Z][a-zA-Z0-9_]{0,62}\Z')


@dataclass(frozen=True, slots=True)
class SloClass:
    """Objectives and utility of one class of requests.

    Raises ``ValueError`` naming the field when a value is not finite, is negative, or (utility)
    is not above zero, and when the name could not be part of a topic name.
    """

    name: str
    ttft_ms: float = 0.0      # time to first token
    tpot_ms: float = 0.0      # time per output token after the first
    deadline_ms: float = 0.0  # request received to last token computed
    utility: float = 1.0      # of one attained request, relative to other classes

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise ValueError(
                f'class name {self.name!r:.80} must be a letter followed by letters, digits or '
                'underscores, 63 characters at most')
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f'{self.name}.{field.name} must be a number, not {value!r:.80}')
            if not math.isfinite(value) or value < 0:
                raise ValueError(
                    f'{self.name}.{field.name} must be finite and not negative, not {value}')
        if self.utility <= 0:
            raise ValueError(f'{self.name}.utility must be above 0, not {self.utility}')

    @property
    def ttft(self) -> float:
        """Objective for the first token in seconds; infinite where there is none."""
        return self.ttft_ms / 1e3 or math.inf

    @property
    def tpot(self) -> float:
        """Objective for each later token in seconds; infinite where there is none."""
        return self.tpot_ms / 1e3 or math.inf

    @property
    def deadline(self) -> float:
        """Objective for the last token in seconds; infinite where there is none."""
        return self.deadline_ms / 1e3 or math.inf


# Three kinds of caller in the setting of SLICE (arXiv 2510.18544): real-time control, whose
# utility is far above the rest, beside two slower kinds. Utilities of 100 and 1 are those of the
# authors' code, which counts an answer by its TPOT alone (config/workloads/tpot_only.yaml). Ours
# are 100 and 250 ms a token, every TTFT and deadline, and the utility in between.
# `config/slice.yaml` and the ROS parameters start from these.
DEFAULT_CLASSES = (
    SloClass('control', ttft_ms=500, tpot_ms=50, deadline_ms=1500, utility=100),
    SloClass('navigation', ttft_ms=1000, tpot_ms=100, deadline_ms=6000, utility=10),
    SloClass('dialogue', ttft_ms=1500, tpot_ms=250, deadline_ms=0, utility=1),
)


@dataclass(frozen=True, slots=True)
class SloReport:
    """The objectives of one request and what was measured; all times in seconds.

    ``ttft``, ``tpot`` and ``completion`` are NaN when no token was delivered; ``elapsed`` runs to
    the end of the request for any reason (NaN before). ``served`` is true when the request ran to
    its own end (a stop or ``max_tokens``): one that was rejected, failed or cancelled has attained
    nothing.
    """

    request_id: str
    slo: SloClass
    served: bool
    prompt_tokens: int
    output_tokens: int
    ttft: float
    tpot: float
    completion: float
    max_gap: float
    elapsed: float = math.nan
    reused_tokens: int = 0  # of the prompt, found in the KV cache
    session_id: str = ''    # session it belonged to; empty = none
    reasoning_tokens: int = 0   # of the output tokens, those of a thought before the answer
    answer: float = math.nan    # request received to first token of the answer itself

    @property
    def ttft_met(self) -> bool:
        return self.ttft <= self.slo.ttft

    @property
    def tpot_met(self) -> bool:
        return self.tpot <= self.slo.tpot

    @property
    def deadline_met(self) -> bool:
        return self.completion <= self.slo.deadline

    @property
    def attained(self) -> bool:
        """Every objective that is set was met (NaN meets nothing)."""
        return self.served and self.ttft_met and self.tpot_met and self.deadline_met
