# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Changes of the configuration while requests are served."""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy
from slice_ros.scheduling.registry import make_policy
from slice_ros.serving.server_config import ServerConfig
from slice_ros.serving.sessions import Sessions
from slice_ros.serving.shared_state import SharedState
from slice_ros.slo import SloClass

if TYPE_CHECKING:
    from slice_ros.engine import EngineInfo


_CHUNK_S = 0.02           # of a chosen chunk: decodes beside it still keep 50 ms a token
_CHUNKS = (64, 128, 256, 512, 1024, 2048)


def settled(config: ServerConfig, info: 'EngineInfo', latency: LatencyModel) -> ServerConfig:
    """Return `config` with a prefill chunk for this engine where it leaves the choice (0).

    An urgent request waits for the chunk that is computed. On a GPU, where small ones leave most
    of the device idle, it is the largest that takes at most 20 ms by the profile.
    """
    if config.prefill_chunk:
        return config
    chunks = _CHUNKS if info.asynchronous else _CHUNKS[:1]
    return replace(config, prefill_chunk=max(
        chunk for chunk in chunks if chunk == _CHUNKS[0] or latency.prefill(chunk) <= _CHUNK_S))


def configured_policy(config: ServerConfig, info: 'EngineInfo') -> Policy:
    """Return a new policy. Raises ``ValueError`` when it, or an option of it, is unknown."""
    capacity = Capacity(max_batch=config.max_batch, slots=info.slots, kv_tokens=info.kv_tokens,
                        prefill_chunk=config.prefill_chunk)
    return make_policy(config.policy, capacity, **config.policy_options)


def reconfigure(shared: SharedState, sessions: Sessions, config: ServerConfig) -> None:
    """Put `config` in force; live requests have their new objectives from the next plan on.

    A live request takes the new objectives of its class where it has the class's own.
    """
    with shared.changed:
        before, names = shared.config, shared.class_names()
        for name in shared.class_stats.keys() - set(names):
            del shared.class_stats[name]   # removed earlier: starts anew if it comes back
        shared.config, sessions.limits = config, config.sessions
        shared.change_objectives(new_objectives(before.classes, config.classes))


def new_objectives(before: Iterable[SloClass], after: Iterable[SloClass]
                   ) -> Callable[[SloClass], SloClass]:
    """Return a function from the objectives of a live request to those it has from now on."""
    old, new = ({slo.name: slo for slo in classes} for classes in (before, after))

    def change(slo: SloClass) -> SloClass:
        if slo.name not in old or slo.name not in new:
            return slo
        was, to = old[slo.name], new[slo.name]
        return replace(slo, **{
            field.name: getattr(to, field.name) for field in fields(slo)
            if getattr(slo, field.name) == getattr(was, field.name)})
    return change
