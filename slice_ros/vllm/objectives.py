# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The class and the objectives that a caller sends beside its prompt.

They are arguments of `SamplingParams.extra_args`; over HTTP, of ``vllm_xargs``: ``slo_class``, and
``ttft_ms``, ``tpot_ms`` and ``deadline_ms`` with the meaning that they have in
``action/Generate.action``.
"""

from collections.abc import Mapping, Sequence
import logging
import math

from slice_ros.slo import SloClass

log = logging.getLogger('slice_ros.vllm')

CLASS = 'slo_class'
TIMES = ('ttft_ms', 'tpot_ms', 'deadline_ms')


class Objectives:
    """Reads the arguments of requests; what cannot be read is served in the class `default`."""

    def __init__(self, classes: Sequence[SloClass], default: SloClass) -> None:
        self._classes = {slo.name: slo for slo in classes}
        self._default = default
        self._warned = False

    def of(self, arguments: object) -> SloClass:
        """Return the class of a request with these arguments; never raises."""
        if not isinstance(arguments, Mapping):
            return self._default
        try:
            return self._read(arguments)
        except (ValueError, OverflowError) as error:
            if not self._warned:  # once: a caller must not fill the log
                self._warned = True
                log.warning('a request is served as %s: %s; further ones are not mentioned',
                            self._default.name, error)
            return self._default

    def _read(self, arguments: Mapping) -> SloClass:
        slo = self._default
        name = arguments.get(CLASS)
        if name is not None:
            if not isinstance(name, str) or name not in self._classes:
                raise ValueError(f'{CLASS} {name!r:.80} is none of {", ".join(self._classes)}')
            slo = self._classes[name]
        own = {key: _milliseconds(key, arguments[key]) for key in TIMES if key in arguments}
        if not any(own.values()):
            return slo
        times = {key: own.get(key) or getattr(slo, key) for key in TIMES}
        return SloClass(slo.name, utility=slo.utility,
                        **{key: 0.0 if math.isinf(ms) else ms for key, ms in times.items()})


def _milliseconds(key: str, value: object) -> float:
    """Return an objective: 0 for that of the class, infinity for none. Raises ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f'{key} must be a number of milliseconds, not {value!r:.80}')
    try:
        ms = float(value)
    except ValueError:
        ms = math.nan
    if not ms >= 0:
        raise ValueError(f'{key} must be a number of at least 0, not {value!r:.80}')
    return ms
