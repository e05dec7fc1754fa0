# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Workload files (YAML) and recorded traces (JSONL); each error names the field at fault."""

from collections.abc import Iterable, Mapping
import json
import math
from pathlib import Path

from slice_ros.bench.schedule.workload import Arrival, ClassMix, normalised, Phase, Workload
from slice_ros.slo import DEFAULT_CLASSES, SloClass
import yaml


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
    ``"max_tokens"`` (else the longest output of that class in the trace) and ``"slo"``, the
    objectives of the request (else those of the class of that name in `classes`). Raises
    ``ValueError`` naming the line and field at fault.
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
                                'max_tokens', 'slo'})
    name = row.get('class')
    if 'slo' in row:
        slo = _slo(name, row['slo'], 'slo')
    elif isinstance(name, str) and name in known:
        slo = known[name]
    else:
        raise ValueError(f'class {name!r:.80} is none of {", ".join(known)}')
    time = _number(row.get('arrival'), 'arrival', 0.0)
    prompt = _count(row.get('prompt_tokens'), 'prompt_tokens')
    output = _count(row.get('output_tokens'), 'output_tokens')
    limit = _count(row['max_tokens'], 'max_tokens') if 'max_tokens' in row else 0
    return time, slo, prompt, output, limit


def _slo(name: str, entry, where: str) -> SloClass:
    _only(entry, where, {'ttft_ms', 'tpot_ms', 'deadline_ms', 'utility'})
    return SloClass(name, **entry)


def _workload(data, default_name: str) -> Workload:
    _only(data, 'a workload', {'name', 'classes', 'phases'})
    name = data.get('name', default_name)
    entries = data.get('classes')
    if not isinstance(entries, Mapping) or not entries:
        raise ValueError('classes must map each class name to its share and token ranges')
    shares = normalised({key: _field(entry, key, 'share') for key, entry in entries.items()},
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
        slo = _slo(name, entry['slo'], f'classes.{name}.slo')
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
    return Phase(seconds, rate, mix and normalised(mix, names, f'{where}.mix'))


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
            raise ValueError(
                f'{where}: unknown key {key!r:.80}, expected {", ".join(sorted(allowed))}')


def _number(value, where: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) \
            or not math.isfinite(value) or value < least:
        raise ValueError(f'{where} must be a number of at least {least:g}, not {value!r:.80}')
    return float(value)


def _count(value, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{where} must be a whole number of at least 1, not {value!r:.80}')
    return value
