# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How long a step takes: decode as a function of batch and context, prefill of tokens and context.

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

from slice_ros.scheduling.latency_learning import Learning, REPORT
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
    # Mean |measured / predicted - 1| of the last steps observed; NaN before the first.
    error: float = field(default=math.nan, init=False, compare=False)
    _decode: Learning = field(default_factory=Learning, init=False, repr=False, compare=False)
    _prefill: Learning = field(default_factory=Learning, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.decode_ms = tuple((int(b), float(ms)) for b, ms in self.decode_ms)
        batches = [b for b, _ in self.decode_ms]
        if not batches or batches[0] < 1 or any(a >= b for a, b in zip(batches, batches[1:])):
            raise ValueError(
                f'{self.name}: decode_ms needs rising batch sizes from 1, got {batches}')
        numbers = [ms for _, ms in self.decode_ms] + [
            self.decode_context_ms, self.prefill_base_ms, self.prefill_token_ms,
            self.prefill_context_ms]
        if not all(math.isfinite(x) and x >= 0 for x in numbers):
            raise ValueError(f'{self.name}: times must be finite and not negative')

    def decode(self, batch: int, context: int = 0) -> float:
        """Seconds of a decode step of `batch` requests that read `context` cached tokens."""
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
        return (ms + self.decode_context_ms * context) / 1e3

    def prefill(self, tokens: int, context: int = 0) -> float:
        """Seconds of a prefill chunk of `tokens` behind `context` tokens already cached."""
        if tokens <= 0:
            return 0.0
        reads = tokens * (context + tokens / 2)
        return (self.prefill_base_ms + self.prefill_token_ms * tokens
                + self.prefill_context_ms * reads) / 1e3

    def step(self, batch: int, context: int, chunks: Iterable[tuple[int, int]] = ()) -> float:
        """Seconds of a mixed step: `batch` decodes and prefill `chunks` (tokens, context)."""
        return self.decode(batch, context) + sum(self.prefill(n, c) for n, c in chunks)

    def observe(self, batch: int, context: int, chunks: Iterable[tuple[int, int]],
                seconds: float) -> float:
        """Learn from a step that took `seconds`; the other arguments are those of `step`.

        Return what `step` predicted before. The terms of the model are corrected in place. A
        step with decodes and prefills corrects the prefill terms alone: the time of its decode
        part is taken from the model.
        """
        chunks = tuple(chunks)
        decode = self.decode(batch, context)
        prefill = sum(self.prefill(n, c) for n, c in chunks)
        predicted = decode + prefill
        if not (0 < seconds < math.inf and predicted > 0):
            return predicted
        wrong = abs(seconds / predicted - 1)
        self.error = (wrong if math.isnan(self.error)
                      else self.error + REPORT * (wrong - self.error))
        if prefill > 0:
            # However long the decode part took, some of the time was the prefill's.
            rest = max(seconds - decode, 0.1 * seconds)
            self._learn_prefill(chunks, prefill, *self._prefill.correction(rest, prefill))
        else:
            factor, exponent = self._decode.correction(seconds, decode)
            self._learn_decode(batch, context, decode, factor, exponent)
            if factor != 1 and not self._prefill.settled:  # a slow machine is slow at both
                self.prefill_base_ms *= factor
                self.prefill_token_ms *= factor
                self.prefill_context_ms *= factor
        return predicted

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
        base, token, read = (factor * math.exp(exponent * part / 1e3 / predicted)
                             for part in parts)
        self.prefill_base_ms *= base
        self.prefill_token_ms *= token
        self.prefill_context_ms *= read

    def save(self, path: Path) -> None:
        """Write the profile as YAML."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        data['decode_ms'] = [list(pair) for pair in self.decode_ms]
        path.write_text(yaml.safe_dump(data, sort_keys=False))


def load_profile(path: Path) -> LatencyModel:
    """Read a profile. Raises ``ValueError`` naming the file when it is not one."""
    try:
        data = yaml.safe_load(path.read_text())
        return LatencyModel(**data)
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f'{path} is not a latency profile: {error}') from error
