"""How long a step takes: decode as a function of batch and context, prefill of tokens and context.

All times are seconds. A model is a small table that a profile run measured (or a file of
`config/profiles/`); batch sizes between and beyond the measured ones are interpolated linearly.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass
import math
from pathlib import Path

import yaml


@dataclass(slots=True)
class LatencyModel:
    """``l(b, context) = table(b) + decode_context * context``, ``p(n) = base + token * n + ...``.

    `decode_ms` holds (batch, ms) pairs with rising batch sizes at zero context; `context` is the
    number of cached tokens that the rows of a step read, summed over the rows.
    """

    name: str
    decode_ms: tuple[tuple[int, float], ...]
    decode_context_ms: float = 0.0    # per cached token read
    prefill_base_ms: float = 0.0      # per chunk
    prefill_token_ms: float = 0.0     # per token fed
    prefill_context_ms: float = 0.0   # per token fed and cached token it reads

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
        """Seconds of a decode step over `batch` rows that read `context` cached tokens in all."""
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
        """Seconds of a mixed step: `batch` decode rows and prefill `chunks` (tokens, context)."""
        return self.decode(batch, context) + sum(self.prefill(n, c) for n, c in chunks)

    def save(self, path: Path) -> None:
        """Write the profile as YAML."""
        data = asdict(self)
        data['decode_ms'] = [list(pair) for pair in self.decode_ms]
        path.write_text(yaml.safe_dump(data, sort_keys=False))


def load_profile(path: Path) -> LatencyModel:
    """Read a profile. Raises ``ValueError`` naming the file when it is not one."""
    try:
        data = yaml.safe_load(path.read_text())
        return LatencyModel(**data)
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f'{path} is not a latency profile: {error}') from error
