# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a latency model learns from the steps that were run.

Two corrections, both in the logarithm of measured over predicted time, so that twice as long and
half as long weigh the same. When the median of the last steps is off, everything of its kind is
scaled at once: a model that is wrong by a factor is right after `ENOUGH` steps, and a minority
of outliers moves nothing. What is left is learnt slowly, each step correcting the terms that its
prediction was made of in proportion to their share.
"""

from collections import deque
import math
from statistics import median

WINDOW = 25       # steps whose median says whether everything is off
ENOUGH = 13       # of them before it says anything
OFF = 0.18        # median |log ratio| that is no noise
GAIN = 0.04       # share of a step's error that its terms take on
CLIP = 0.3        # error beyond which a step is an outlier and counts no more than this
REPORT = 0.05     # weight of the newest step in the reported error


class Learning:
    """Recent errors of one kind of step: decode, or prefill."""

    __slots__ = ('_errors', 'settled')

    def __init__(self) -> None:
        self._errors: deque[float] = deque(maxlen=WINDOW)
        self.settled = False  # whether it has seen enough to judge by itself

    def correction(self, measured: float, predicted: float) -> tuple[float, float]:
        """Return the factor for all terms, and the exponent for those of this step.

        A term that made up the share s of the prediction is multiplied by
        ``factor * exp(exponent * s)``.
        """
        error = math.log(measured / predicted)
        self._errors.append(error)
        if len(self._errors) >= ENOUGH:
            self.settled = True
            # Only an error beyond the bounds moves the median beyond them.
            middle = median(self._errors) if abs(error) > OFF else 0.0
            if abs(middle) > OFF:
                self._errors.clear()
                return math.exp(middle), 0.0
        return 1.0, GAIN * max(-CLIP, min(error, CLIP))
