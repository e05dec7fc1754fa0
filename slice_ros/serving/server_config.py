# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a server is told to schedule, and what becomes of live requests when that changes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from slice_ros.serving.sessions import SessionLimits
from slice_ros.slo import DEFAULT_CLASSES, SloClass

DEFAULT_POLICY = 'slice'


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How requests are scheduled and how many are taken in."""

    policy: str = DEFAULT_POLICY
    policy_options: Mapping[str, object] = field(default_factory=dict)
    admission: str = 'accept'    # accept, reject or degrade:CLASS what cannot be met
    classes: tuple[SloClass, ...] = DEFAULT_CLASSES
    max_batch: int = 16          # requests in one decode step
    prefill_chunk: int = 512     # prompt tokens in one step
    max_queued: int = 64         # live requests that hold no KV cache
    max_prompt_tokens: int = 0   # 0 = as many as the context holds
    max_tokens: int = 1024       # most a request may ask for
    window: float = 60.0         # seconds that the figures of a snapshot cover
    sessions: SessionLimits = SessionLimits()


def new_objectives(before: Iterable[SloClass], after: Iterable[SloClass]
                   ) -> Callable[[SloClass], SloClass]:
    """Return what turns the objectives of a live request into those it has from now on."""
    old, new = ({slo.name: slo for slo in classes} for classes in (before, after))

    def change(slo: SloClass) -> SloClass:
        if slo.name not in old or slo.name not in new:
            return slo
        was, to = old[slo.name], new[slo.name]
        return replace(slo, **{
            field.name: getattr(to, field.name) for field in fields(slo)
            if getattr(slo, field.name) == getattr(was, field.name)})
    return change
