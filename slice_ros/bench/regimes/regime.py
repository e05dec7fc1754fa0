# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Regimes: workloads and traces, shipped or of a folder, at a load relative to saturation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slice_ros.bench.config_files import config_file, files_of
from slice_ros.bench.schedule.lp_bound import least_work
from slice_ros.bench.schedule.workload import Arrival, generate, Workload
from slice_ros.bench.schedule.workload_file import load_trace, load_workload
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity
import yaml

AUTHORS, LINEAR, FLAT = 'slice-authors-rtx4060ti', 'linear-edge-gpu', 'flat-gpu'
SAMPLE = 1000      # requests whose mean work sets the saturation of a workload
ROTATIONS = 10     # seeds start a trace at as many points, evenly


@dataclass(frozen=True, slots=True)
class Regime:
    """A workload, or a trace: arrivals in order of time."""

    name: str
    source: Workload | tuple[Arrival, ...]

    def draw(self, rate: float, requests: int, seed: int) -> tuple[Arrival, ...]:
        """Return at most `requests` arrivals at `rate` requests a second on average.

        A trace keeps its order and the proportions of its gaps; a seed sets where it starts, and
        after its end comes its beginning.
        """
        if isinstance(self.source, Workload):
            return tuple(generate(self.source, rate, requests, seed))
        times = [a.time for a in self.source]
        span = max(times[-1] - times[0], 1e-9)
        gaps = [b - a for a, b in zip(times, times[1:])]
        gaps.append(span / max(len(gaps), 1))   # from its end to its beginning
        scale = len(gaps) / (rate * sum(gaps))
        first = seed * len(times) // ROTATIONS % len(times)
        drawn, now = [], 0.0
        for i in range(min(requests, len(times))):
            at = (first + i) % len(times)
            drawn.append(replace(self.source[at], time=now))
            now += gaps[at] * scale
        return tuple(drawn)

    def saturation(self, latency: LatencyModel) -> float:
        """Return the requests a second whose mean least work fills the time of the engine."""
        sample = (generate(self.source, 1.0, SAMPLE, 0) if isinstance(self.source, Workload)
                  else self.source)
        capacity = Capacity()
        return len(sample) / sum(least_work(a, latency, capacity) for a in sample)

    def utilities(self) -> set[float]:
        """Return the utilities of its classes."""
        if isinstance(self.source, Workload):
            return {c.slo.utility for c in self.source.classes}
        return {a.slo.utility for a in self.source}


def shipped_regimes() -> list[Regime]:
    """Return the workloads of `config/workloads`."""
    return [Regime(name, load_workload(path))
            for name, path in sorted(files_of('workloads').items())]


def shipped_profiles() -> list[LatencyModel]:
    """Return the profiles that every regime is simulated on."""
    return [load_profile(config_file('profiles', name)) for name in (AUTHORS, LINEAR, FLAT)]


def read_folder(folder: Path, regimes: Sequence[Regime], profiles: Sequence[LatencyModel]
                ) -> tuple[list[Regime], list[LatencyModel]]:
    """Return `regimes` and `profiles` with those of the files in a folder, at any depth.

    Workloads and profiles end with .yaml, traces with .jsonl. Left out are workloads equal to one
    that is known, profiles of a known name, and traces that differ from another in their rate
    alone. Raises ``ValueError`` naming the file that is neither, or that there is none.
    """
    regimes, profiles = list(regimes), list(profiles)
    paths = sorted(path for path in folder.rglob('*') if path.suffix in ('.yaml', '.jsonl'))
    if not paths:
        raise ValueError(f'{folder} holds no .yaml and no .jsonl file')
    requests = set()
    for path in paths:
        if path.suffix == '.jsonl':
            trace = tuple(load_trace(path))
            same = tuple(replace(a, time=0.0) for a in trace)
            if same not in requests:
                requests.add(same)
                regimes.append(Regime(path.stem, trace))
        elif _is_profile(path):
            profile = load_profile(path)
            if profile.name not in {known.name for known in profiles}:
                profiles.append(profile)
        else:
            workload = load_workload(path)
            if workload not in [known.source for known in regimes]:
                regimes.append(Regime(path.stem, workload))
    return regimes, profiles


def _is_profile(path: Path) -> bool:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f'{path}: {error}') from error
    return isinstance(data, dict) and 'decode_ms' in data
