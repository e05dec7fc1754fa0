# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a latency model learns from the steps that were run.

Both corrections use the logarithm of measured over predicted time, so that twice as long and half
as long weigh the same. When the median error of the last steps is large, all terms for decode, or
all for prefill, are scaled at once: a model that is wrong by a factor is right after `ENOUGH`
steps, and a minority of outliers changes nothing. The remaining error is learnt slowly: each step
corrects the terms of its prediction in proportion to their share.

What the parts of a step share, and what a further token takes, are differences of times and may
be 0: they are corrected by adding. The spread of their errors is that of whole steps, which may be
far longer, so that a median error counts only when it is clearly beyond that spread.
"""

from collections import deque
import math
from statistics import median

WINDOW = 25       # steps whose median error is watched
ENOUGH = 13       # of them before the median counts
OFF = 0.18        # median |log ratio| above which all terms are scaled
GAIN = 0.04       # share of a step's error by which its terms are corrected
CLIP = 0.3        # log ratio beyond which a step is an outlier and counts no more than this
CLEAR = 1.5       # median deviations beyond which a median difference is no accident (1 in 200)
REPORT = 0.05     # weight of the newest step in the reported error


class Learning:
    """Recent errors of decode steps, or of prefill steps."""

    __slots__ = ('_errors', 'settled')

    def __init__(self) -> None:
        self._errors: deque[float] = deque(maxlen=WINDOW)
        self.settled = False  # whether `ENOUGH` steps were seen

    def clear(self) -> None:
        """Forget the errors: they were found with terms that have changed."""
        self._errors.clear()

    def correction(self, measured: float, predicted: float) -> tuple[float, float]:
        """Return the factor for all terms, and the exponent for those of this step.

        A term that made up the share s of the prediction is multiplied by
        ``factor * exp(exponent * s)``.
        """
        error = math.log(measured / predicted)
        self._errors.append(error)
        if len(self._errors) >= ENOUGH:
            self.settled = True
            # The median can only pass OFF by an error beyond OFF.
            middle = median(self._errors) if abs(error) > OFF else 0.0
            if abs(middle) > OFF:
                self._errors.clear()
                return math.exp(middle), 0.0
        return 1.0, GAIN * max(-CLIP, min(error, CLIP))


class DifferenceLearning:
    """Recent errors of a term that is a difference of step times."""

    __slots__ = ('_errors',)

    def __init__(self) -> None:
        self._errors: deque[float] = deque(maxlen=WINDOW)

    def clear(self) -> None:
        """Forget the errors: they were found beside terms that have changed."""
        self._errors.clear()

    def correction(self, error: float, predicted: float) -> float:
        """Return the seconds to add after an `error` in a step of `predicted` seconds."""
        self._errors.append(error)
        if len(self._errors) >= ENOUGH:
            middle = median(self._errors)
            if abs(middle) > CLEAR * median([abs(e - middle) for e in self._errors]):
                self._errors.clear()
                return middle
        most = CLIP * predicted
        return GAIN * max(-most, min(error, most))
