"""What arrives and when: request mixes drawn by seed, or a recorded trace."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import json
import math
from pathlib import Path
import random

from slice_ros.slo import DEFAULT_CLASSES, SloClass
import yaml


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a workload. ``output_tokens`` is its true length, which nobody is told."""

    time: float           # seconds from the start
    slo: SloClass
    prompt_tokens: int
    output_tokens: int
    max_tokens: int       # what the caller asks for at most


@dataclass(frozen=True, slots=True)
class ClassMix:
    """One class of a workload: its share and its token ranges (both ends included)."""

    slo: SloClass
    share: float
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Phase:
    """A span of the day: `rate` relative to the mean, and (where set) its own shares."""

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
        shares = _shares(mix, [c.slo.name for c in self.classes], f'mix of {self.name}')
        classes = tuple(ClassMix(c.slo, shares.get(c.slo.name, 0.0), c.prompt_tokens,
                                 c.output_tokens) for c in self.classes)
        return Workload(self.name, classes, self.phases)

    def scaled(self, factor: float) -> 'Workload':
        """Return a copy whose objectives are `factor` times as long."""
        return Workload(self.name, tuple(
            ClassMix(scale_slo(c.slo, factor), c.share, c.prompt_tokens, c.output_tokens)
            for c in self.classes), self.phases)


def scale_slo(slo: SloClass, factor: float) -> SloClass:
    """Return the class with its objectives `factor` times as long."""
    return SloClass(slo.name, slo.ttft_ms * factor, slo.tpot_ms * factor,
                    slo.deadline_ms * factor, slo.utility)


def generate(workload: Workload, rate: float, requests: int, seed: int) -> list[Arrival]:
    """Draw `requests` Poisson arrivals at `rate` requests a second on average, in order of time.

    The same seed gives the same requests at every rate, only closer together or further apart.
    ``max_tokens`` is the upper bound of the class: callers do not know the length beforehand.
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
        kind = by_name[draw.choices(list(mix), weights=list(mix.values()))[0]]
        prompt, output = (draw.randint(*span) for span in (kind.prompt_tokens, kind.output_tokens))
        arrivals.append(Arrival(time, kind.slo, prompt, output, kind.output_tokens[1]))
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


def load_workload(path: Path) -> Workload:
    """Read a workload file. Raises ``ValueError`` naming the file and the field at fault."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f'{path} is not a workload: {error}') from error
    try:
        return _workload(data, path.stem)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def load_trace(path: Path, classes: Iterable[SloClass] = DEFAULT_CLASSES) -> list[Arrival]:
    """Read a recorded JSONL trace, one request a line, in any order of arrival.

    ``{"arrival": s, "class": name, "prompt_tokens": n, "output_tokens": n}``, and optionally
    ``"max_tokens"`` (else the longest output of that class in the trace). Raises ``ValueError``
    naming the line and field at fault.
    """
    known = {slo.name: slo for slo in classes}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not a trace: {error}') from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(_trace_row(json.loads(line), known))
            except ValueError as error:
                raise ValueError(f'{path}:{number}: {error}') from error
    if not rows:
        raise ValueError(f'{path} holds no request')
    longest: dict[str, int] = {}
    for _, slo, _, output, _ in rows:
        longest[slo.name] = max(output, longest.get(slo.name, 0))
    return sorted((Arrival(time, slo, prompt, output, limit or longest[slo.name])
                   for time, slo, prompt, output, limit in rows), key=lambda a: a.time)


def _trace_row(row, known: Mapping[str, SloClass]) -> tuple[float, SloClass, int, int, int]:
    _only(row, 'a trace line', {'arrival', 'class', 'prompt_tokens', 'output_tokens',
                                'max_tokens'})
    if row.get('class') not in known:
        raise ValueError(f'class {row.get("class")!r:.80} is none of {", ".join(known)}')
    time = _number(row.get('arrival'), 'arrival', 0.0)
    prompt = _count(row.get('prompt_tokens'), 'prompt_tokens')
    output = _count(row.get('output_tokens'), 'output_tokens')
    limit = _count(row['max_tokens'], 'max_tokens') if 'max_tokens' in row else 0
    return time, known[row['class']], prompt, output, limit


def _workload(data, default_name: str) -> Workload:
    _only(data, 'a workload', {'name', 'classes', 'phases'})
    name = data.get('name', default_name)
    entries = data.get('classes')
    if not isinstance(entries, Mapping) or not entries:
        raise ValueError('classes must map each class name to its share and token ranges')
    shares = _shares({key: _field(entry, key, 'share') for key, entry in entries.items()},
                     entries, 'share')
    classes = tuple(_class(key, entry, shares[key]) for key, entry in entries.items())
    phases = data.get('phases') or []
    if not isinstance(phases, list):
        raise ValueError('phases must be a list')
    return Workload(str(name), classes, tuple(
        _phase(phase, f'phases[{i}]', shares) for i, phase in enumerate(phases)))


def _class(name: str, entry: Mapping, share: float) -> ClassMix:
    _only(entry, f'classes.{name}', {'share', 'prompt_tokens', 'output_tokens', 'slo'})
    defaults = {slo.name: slo for slo in DEFAULT_CLASSES}
    if 'slo' in entry:
        _only(entry['slo'], f'classes.{name}.slo',
              {'ttft_ms', 'tpot_ms', 'deadline_ms', 'utility'})
        slo = SloClass(name, **entry['slo'])
    elif name in defaults:
        slo = defaults[name]
    else:
        raise ValueError(f'classes.{name} needs slo: only {", ".join(defaults)} have a default')
    return ClassMix(slo, share, _span(entry, name, 'prompt_tokens'),
                    _span(entry, name, 'output_tokens'))


def _phase(entry, where: str, names: Iterable[str]) -> Phase:
    _only(entry, where, {'seconds', 'rate', 'mix'})
    seconds = _number(entry.get('seconds'), f'{where}.seconds', 0.0)
    rate = _number(entry.get('rate'), f'{where}.rate', 0.0)
    if seconds <= 0 or rate <= 0:
        raise ValueError(f'{where}: seconds and rate must be above 0')
    mix = entry.get('mix')
    return Phase(seconds, rate, mix and _shares(mix, names, f'{where}.mix'))


def _shares(mix, names: Iterable[str], where: str) -> dict[str, float]:
    names = list(names)
    if not isinstance(mix, Mapping):
        raise ValueError(f'{where} must map class names to shares')
    for name, share in mix.items():
        if name not in names:
            raise ValueError(f'{where}: unknown class {name!r:.80}, choose from {", ".join(names)}')
        _number(share, f'{where}.{name}', 0.0)
    total = sum(mix.values())
    if total <= 0:
        raise ValueError(f'{where}: the shares must add up to more than 0')
    return {name: share / total for name, share in mix.items()}


def _span(entry: Mapping, name: str, key: str) -> tuple[int, int]:
    span = _field(entry, name, key)
    if not isinstance(span, list) or len(span) != 2:
        raise ValueError(f'classes.{name}.{key} must be [least, most]')
    low, high = (_count(value, f'classes.{name}.{key}') for value in span)
    if low > high:
        raise ValueError(f'classes.{name}.{key}: {low} is above {high}')
    return low, high


def _field(entry, name: str, key: str):
    if not isinstance(entry, Mapping) or key not in entry:
        raise ValueError(f'classes.{name}.{key} is missing')
    return entry[key]


def _only(data, where: str, allowed: set[str]) -> None:
    if not isinstance(data, Mapping):
        raise ValueError(f'{where} must be a mapping of {", ".join(sorted(allowed))}')
    for key in data:
        if key not in allowed:
            raise ValueError(f'{where}: unknown key {key!r:.80}, expected {", ".join(sorted(allowed))}')


def _number(value, where: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) \
            or not math.isfinite(value) or value < least:
        raise ValueError(f'{where} must be a number of at least {least:g}, not {value!r:.80}')
    return float(value)


def _count(value, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{where} must be a whole number of at least 1, not {value!r:.80}')
    return value
