# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Workloads: a mix of classes, and the requests drawn from it by seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
import math
import random

from slice_ros.slo import SloClass


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a workload. ``output_tokens`` is its true length, unknown to policies."""

    time: float           # seconds from the start
    slo: SloClass
    prompt_tokens: int
    output_tokens: int
    max_tokens: int       # what the caller asks for at most
    answer: str = ''      # of a structured answer, the name of its schema (bench.answers)
    forced: float = 0.0   # share of its tokens that come without a step (jump-forward)


@dataclass(frozen=True, slots=True)
class ClassMix:
    """One class of a workload: its share and its token ranges (both ends included)."""

    slo: SloClass
    share: float
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Phase:
    """A span of time: its `rate` relative to the mean, and its own shares if they are set."""

    seconds: float
    rate: float
    mix: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Classes and the phases that repeat until enough requests have arrived (none = steady)."""

    name: str
    classes: tuple[ClassMix, ...]
    phases: tuple[Phase, ...] = ()

    def with_mix(self, mix: Mapping[str, float]) -> 'Workload':
        """Return a copy with other shares. Raises ``ValueError`` naming a class it lacks."""
        shares = normalised(mix, [c.slo.name for c in self.classes], 'mix')
        return replace(self, classes=tuple(
            replace(c, share=shares.get(c.slo.name, 0.0)) for c in self.classes))

    def scaled(self, factor: float) -> 'Workload':
        """Return a copy whose objectives are `factor` times as long."""
        return replace(self, classes=tuple(
            replace(c, slo=scale_slo(c.slo, factor)) for c in self.classes))


def scale_slo(slo: SloClass, factor: float) -> SloClass:
    """Return the class with its objectives `factor` times as long."""
    return SloClass(slo.name, slo.ttft_ms * factor, slo.tpot_ms * factor,
                    slo.deadline_ms * factor, slo.utility)


def normalised(mix: Mapping[str, float], names: Iterable[str], where: str) -> dict[str, float]:
    """Return `mix` with shares that add up to 1. Raises ``ValueError`` naming what is wrong."""
    names = list(names)
    if not isinstance(mix, Mapping):
        raise ValueError(f'{where} must map class names to shares')
    for name, share in mix.items():
        if name not in names:
            raise ValueError(
                f'{where}: unknown class {name!r:.80}, choose from {", ".join(names)}')
        if isinstance(share, bool) or not isinstance(share, (int, float)) \
                or not 0 <= share < math.inf:
            raise ValueError(
                f'{where}.{name} must be a number of at least 0, not {share!r:.80}')
    total = sum(mix.values())
    if not 0 < total < math.inf:
        raise ValueError(f'{where}: the shares must add up to more than 0')
    return {name: share / total for name, share in mix.items()}


def generate(workload: Workload, rate: float, requests: int, seed: int) -> list[Arrival]:
    """Draw `requests` Poisson arrivals at `rate` requests a second on average, in order of time.

    The same seed gives the same requests at every rate, closer together or further apart.
    ``max_tokens`` is the upper bound of the class: callers do not know the length beforehand.
    Raises ``ValueError`` when `rate` is not above 0.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f'rate must be above 0 requests/s, not {rate}')
    draw = random.Random(seed)
    by_name = {c.slo.name: c for c in workload.classes}
    steady = {name: c.share for name, c in by_name.items()}
    clock = _Phases(workload.phases)
    arrivals = []
    for _ in range(requests):
        time, phase = clock.advance(draw.expovariate(1.0) / rate)
        mix = (phase and phase.mix) or steady
        drawn = by_name[draw.choices(list(mix), weights=list(mix.values()))[0]]
        prompt, output = draw.randint(*drawn.prompt_tokens), draw.randint(*drawn.output_tokens)
        arrivals.append(Arrival(time, drawn.slo, prompt, output, drawn.output_tokens[1]))
    return arrivals


class _Phases:
    """Turns time at the mean rate into time under the phases' rates."""

    def __init__(self, phases: tuple[Phase, ...]) -> None:
        self.phases = phases
        self.index = 0
        self.time = self.left = 0.0
        if phases:
            mean = (sum(p.seconds * p.rate for p in phases) / sum(p.seconds for p in phases))
            self.factors = [p.rate / mean for p in phases]
            self.left = phases[0].seconds

    def advance(self, work: float) -> tuple[float, Phase | None]:
        if not self.phases:
            self.time += work
            return self.time, None
        while work > self.left * self.factors[self.index]:
            work -= self.left * self.factors[self.index]
            self.time += self.left
            self.index = (self.index + 1) % len(self.phases)
            self.left = self.phases[self.index].seconds
        self.time += work / self.factors[self.index]
        self.left -= work / self.factors[self.index]
        return self.time, self.phases[self.index]
