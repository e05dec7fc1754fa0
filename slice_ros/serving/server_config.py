# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""How a server schedules, and how many requests it takes in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    prefill_chunk: int = 512     # prompt tokens in one step; 0 = by the profile of the engine
    max_queued: int = 64         # live requests without a KV cache
    class_share: float = 0.5     # of the full queue, that one class has at most
    max_prompt_tokens: int = 0   # 0 = as many as the context has room for
    max_tokens: int = 1024       # most a request may ask for
    window: float = 60.0         # seconds that the figures of a snapshot cover
    sessions: SessionLimits = SessionLimits()

    @property
    def drops_missed(self) -> bool:
        """Whether a request ends when an objective of it is missed."""
        return self.policy_options.get('on_miss') == 'drop'
