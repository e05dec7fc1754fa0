# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How long a step takes: decode as a function of batch and context, prefill of tokens and context.

A step has parts: its decode, and each prefill chunk. What every part costs alone, reading the
weights most of all, a step of several parts pays once. A request that decodes may feed further
tokens behind its last one, where they are forced: each costs a row of the step.

All times are seconds. A model is a small table that a profile run measured, or a file of
`config/profiles/`. Batch sizes between the measured ones are interpolated linearly, those beyond
are extrapolated. The model is refined by the steps that are run (`observe`) and reports its
recent error.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
import math
from pathlib import Path

from slice_ros.scheduling.latency_learning import (
    DifferenceLearning, Learning, REPORT, WINDOW)
import yaml


@dataclass(slots=True)
class LatencyModel:
    """``l(b, context) = table(b) + decode_context * context``, ``p(n) = base + token * n + ...``.

    `decode_ms` holds (batch, ms) pairs with rising batch sizes at zero context; `context` is the
    number of cached tokens that the requests of a step read in all.
    """

    name: str
    decode_ms: tuple[tuple[int, float], ...]
    decode_context_ms: float = 0.0    # per cached token read
    prefill_base_ms: float = 0.0      # per chunk
    prefill_token_ms: float = 0.0     # per token fed
    prefill_context_ms: float = 0.0   # per token fed and cached token it reads
    shared_ms: float = 0.0            # of each part of a step, paid once for all of them
    # Per further token of a request that decodes; None = as much as one request more, on average.
    further_ms: float | None = None
    # Steps of several parts still to be tried: what they share is not known.
    trials: int = field(default=0, init=False, compare=False)
    # Mean |measured / predicted - 1| of the last steps observed; NaN before the first.
    error: float = field(default=math.nan, init=False, compare=False)
    _decode: Learning = field(default_factory=Learning, init=False, repr=False, compare=False)
    _prefill: Learning = field(default_factory=Learning, init=False, repr=False, compare=False)
    # Of steps with several parts: what is shared, and their prefills beyond what that explains.
    _shared: DifferenceLearning = field(default_factory=DifferenceLearning, init=False,
                                        repr=False, compare=False)
    _beside: Learning = field(default_factory=Learning, init=False, repr=False, compare=False)
    _further: DifferenceLearning = field(default_factory=DifferenceLearning, init=False,
                                         repr=False, compare=False)

    def __post_init__(self) -> None:
        self.decode_ms = tuple((int(b), float(ms)) for b, ms in self.decode_ms)
        batches = [b for b, _ in self.decode_ms]
        if not batches or batches[0] < 1 or any(a >= b for a, b in zip(batches, batches[1:])):
            raise ValueError(
                f'{self.name}: decode_ms needs rising batch sizes from 1, got {batches}')
        if self.further_ms is None:
            (least, first), (most, last) = self.decode_ms[0], self.decode_ms[-1]
            self.further_ms = max(last - first, 0.0) / (most - least) if most > least else first
        numbers = [ms for _, ms in self.decode_ms] + [
            self.decode_context_ms, self.prefill_base_ms, self.prefill_token_ms,
            self.prefill_context_ms, self.shared_ms, self.further_ms]
        if not all(math.isfinite(x) and x >= 0 for x in numbers):
            raise ValueError(f'{self.name}: times must be finite and not negative')

    def decode(self, batch: int, context: int = 0, further: int = 0) -> float:
        """Seconds of a decode step of `batch` requests that read `context` cached tokens.

        `further` is the tokens that they feed beyond one each.
        """
        if batch <= 0:
            return 0.0
        table = self.decode_ms
        i = bisect_left(table, (batch, -1.0))
        if i < len(table) and table[i][0] == batch:
            ms = table[i][1]
        elif len(table) == 1 or i == 0:
            ms = table[0][1] * (batch / table[0][0] if i else 1.0)
        else:
            (b0, t0), (b1, t1) = table[i - 1:i + 1] if i < len(table) else table[-2:]
            ms = t0 + (t1 - t0) * (batch - b0) / (b1 - b0)
        return (ms + self.decode_context_ms * context + self.further_ms * further) / 1e3

    def prefill(self, tokens: int, context: int = 0) -> float:
        """Seconds of a prefill chunk of `tokens` behind `context` tokens already cached."""
        if tokens <= 0:
            return 0.0
        reads = tokens * (context + tokens / 2)
        return (self.prefill_base_ms + self.prefill_token_ms * tokens
                + self.prefill_context_ms * reads) / 1e3

    def step(self, batch: int, context: int, chunks: Iterable[tuple[int, int]] = (),
             further: int = 0) -> float:
        """Seconds of a step: `batch` decodes, as in `decode`, and `chunks` (tokens, context).

        Each part but the longest saves what is shared, at most all of its time.
        """
        parts = self._parts(batch, context, chunks, further)
        return sum(parts) - self._saved(parts)

    def _parts(self, batch: int, context: int, chunks: Iterable[tuple[int, int]], further: int
               ) -> list[float]:
        """Return the seconds that the decode and each chunk would take alone, without zeros."""
        parts = [self.decode(batch, context, further), *[self.prefill(n, c) for n, c in chunks]]
        return [part for part in parts if part > 0]

    def _saved(self, parts: list[float]) -> float:
        if not self.shared_ms or len(parts) < 2:
            return 0.0
        shared = self.shared_ms / 1e3
        return sum([min(part, shared) for part in parts]) - min(max(parts), shared)

    def observe(self, seconds: float, batch: int, context: int,
                chunks: Iterable[tuple[int, int]] = (), further: int = 0) -> float:
        """Learn from a step that took `seconds`; the other arguments are those of `step`.

        Return what `step` predicted before. The terms of the model are corrected in place. A
        step of one part corrects the terms of that part, a step of several parts what they
        share, and one with further tokens what these take: all else is taken from the model.
        """
        chunks = tuple(chunks)
        parts = self._parts(batch, context, chunks, further)
        predicted = sum(parts) - self._saved(parts)
        if not (0 < seconds < math.inf and predicted > 0):
            return predicted
        wrong = abs(seconds / predicted - 1)
        self.error = (wrong if math.isnan(self.error)
                      else self.error + REPORT * (wrong - self.error))
        decode = self.decode(batch, context)
        if further:
            if len(parts) == 1:   # beside chunks it is not known whose the error is
                self._learn_further(further, predicted, seconds)
        elif len(parts) > 1:
            self.trials = max(self.trials - 1, 0)
            self._learn_shared(parts, decode, seconds)
        elif decode > 0:
            factor, exponent = self._decode.correction(seconds, decode)
            self._learn_decode(batch, context, decode, factor, exponent)
            if factor != 1:  # a slow machine is slow at all
                self.shared_ms *= factor
                self.further_ms *= factor
                self._shared.clear()
                self._further.clear()
                if not self._prefill.settled:
                    self._scale_prefill(factor, factor, factor)
        else:
            factor, exponent = self._prefill.correction(seconds, predicted)
            self._learn_prefill(chunks, predicted, factor, exponent)
            if factor != 1:
                self._shared.clear()
        return predicted

    def _learn_shared(self, parts: list[float], decode: float, seconds: float) -> None:
        """Correct what `parts` share; where it is at its bounds, scale other terms.

        The bounds are 0 and a decode step of one request. The other terms are those for prefill,
        or, as long as few steps of decodes alone were seen, all: a slow machine is slow at all.
        """
        shared = self.shared_ms / 1e3
        predicted = sum(parts) - self._saved(parts)
        error = predicted - seconds
        shorter = sorted(parts)[:-1]
        telling = sum([part > shared for part in shorter])  # the others save no more in any case
        if not telling and error > -sum(shorter) / 2:
            error = 0.0  # it is as predicted but for noise, of which only one side would count
        wanted = shared + self._shared.correction(error / max(telling, 1), predicted)
        new = max(0.0, min(wanted, max(shared, shorter[-1]), self.decode(1)))
        self.shared_ms = new * 1e3
        known = decode if self._decode.settled else 0.0
        if predicted <= known:
            return
        # However long the decode part took, some of the time was the prefill's.
        factor, _ = self._beside.correction(max(seconds - known, 0.1 * seconds), predicted - known)
        if new != shared or (wanted - new) * (1 - factor) <= 0:
            return
        self._scale_prefill(factor, factor, factor)
        self._shared.clear()
        if self._decode.settled:
            self._prefill.settled = True
        else:
            self._learn_decode(1, 0, 1.0, factor, 0.0)
            self._decode.clear()
            self.shared_ms *= factor

    def _learn_further(self, further: int, predicted: float, seconds: float) -> None:
        """Correct what a further token takes: from nothing to a decode step of its own."""
        error = self._further.correction((seconds - predicted) / further, predicted / further)
        self.further_ms = min(max(self.further_ms + 1e3 * error, 0.0), 1e3 * self.decode(1))

    def _learn_decode(self, batch: int, context: int, predicted: float, factor: float,
                      exponent: float) -> None:
        share = self.decode_context_ms * context / 1e3 / predicted
        nearest = min(self.decode_ms, key=lambda pair: abs(pair[0] - batch))[0]
        table, least = [], 0.0
        for size, ms in self.decode_ms:
            # A batch size farther off learns less; a larger batch never takes less time.
            ms *= factor * math.exp(exponent * (1 - share) / (1 + abs(size - nearest)))
            least = max(least, ms)
            table.append((size, least))
        self.decode_ms = tuple(table)
        self.decode_context_ms *= factor * math.exp(exponent * share)

    def _learn_prefill(self, chunks: tuple[tuple[int, int], ...], predicted: float,
                       factor: float, exponent: float) -> None:
        tokens = sum(n for n, _ in chunks)
        reads = sum(n * (c + n / 2) for n, c in chunks)
        parts = (self.prefill_base_ms * len(chunks), self.prefill_token_ms * tokens,
                 self.prefill_context_ms * reads)
        self._scale_prefill(*(factor * math.exp(exponent * part / 1e3 / predicted)
                              for part in parts))

    def _scale_prefill(self, base: float, token: float, read: float) -> None:
        self.prefill_base_ms *= base
        self.prefill_token_ms *= token
        self.prefill_context_ms *= read

    def save(self, path: Path) -> None:
        """Write the profile as YAML."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        data['decode_ms'] = [list(pair) for pair in self.decode_ms]
        path.write_text(yaml.safe_dump(data, sort_keys=False))


def load_profile(path: Path) -> LatencyModel:
    """Read a profile. Raises ``ValueError`` naming the file when it is not one.

    Where it lacks `shared_ms`, the model is to try as many steps of several parts as teach it.
    """
    try:
        data = yaml.safe_load(path.read_text())
        model = LatencyModel(**data)
        model.trials = 0 if 'shared_ms' in data else WINDOW
        return model
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f'{path} is not a latency profile: {error}') from error
