# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the operator sets: the part ``slice`` of vLLM's ``--additional-config``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.slo import DEFAULT_CLASSES, SloClass

KEY = 'slice'


def first_profile() -> LatencyModel:
    """Return step times to begin with: guesses for some billion weights on a GPU.

    The steps that are run correct them; after 13 of them a wrong factor is gone.
    """
    return LatencyModel(
        'vllm', decode_ms=((1, 12.0), (64, 18.0), (256, 40.0)), decode_context_ms=2e-5,
        prefill_base_ms=12.0, prefill_token_ms=0.05, shared_ms=11.0)


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Options of the scheduler, by their names in ``--additional-config``."""

    classes: tuple[SloClass, ...] = DEFAULT_CLASSES
    default_class: str = ''      # of requests without one; empty = the one of least utility
    policy: str = 'slice'        # a name that `scheduling.registry` knows
    policy_options: Mapping[str, object] = field(default_factory=dict)
    # Step times to begin with: a file, or its contents.
    profile: LatencyModel = field(default_factory=first_profile)
    max_batch: int = 0           # requests in one decode step; 0 = vLLM's max_num_seqs
    prefill_chunk: int = 0       # prompt tokens in one step; 0 = what vLLM's token budget leaves

    @property
    def default(self) -> SloClass:
        """The class of requests that name none."""
        if self.default_class:
            return next(slo for slo in self.classes if slo.name == self.default_class)
        return min(self.classes, key=lambda slo: slo.utility)


def read_options(additional_config: object) -> VllmOptions:
    """Return the options of an ``additional_config``.

    Raises ``ValueError`` naming the one that is unknown or wrong.
    """
    values = additional_config.get(KEY, {}) if isinstance(additional_config, Mapping) else {}
    known = [f.name for f in fields(VllmOptions)]
    if not isinstance(values, Mapping):
        raise ValueError(f'{KEY} must map options to values')
    for name in values:
        if name not in known:
            raise ValueError(f'{KEY}: unknown option {name!r:.80}: choose of {", ".join(known)}')
    options = dict(values)
    if 'classes' in options:
        options['classes'] = _classes(options['classes'])
    if 'profile' in options:
        options['profile'] = _profile(options['profile'])
    for name in ('max_batch', 'prefill_chunk'):
        value = options.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f'{KEY}.{name} must be a whole number, not {value!r:.80}')
    if not isinstance(options.get('policy_options', {}), Mapping):
        raise ValueError(f'{KEY}.policy_options must map options to values')
    read = VllmOptions(**options)
    if read.default_class not in ('', *(slo.name for slo in read.classes)):
        raise ValueError(f'{KEY}.default_class {read.default_class!r:.80} is none of the classes')
    return read


def _classes(entries: object) -> tuple[SloClass, ...]:
    if not isinstance(entries, Mapping) or not entries:
        raise ValueError(f'{KEY}.classes must map names to objectives')
    try:
        return tuple(SloClass(name, **entry) for name, entry in entries.items())
    except TypeError as error:
        raise ValueError(f'{KEY}.classes: {error}') from error


def _profile(value: object) -> LatencyModel:
    if isinstance(value, Mapping):
        try:
            return LatencyModel(**value)
        except TypeError as error:
            raise ValueError(f'{KEY}.profile: {error}') from error
    return load_profile(Path(str(value)))
