# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The scheduling policies by name. A new one is a file of its own and a line in `POLICIES`."""

from slice_ros.scheduling.baselines.fastserve import FastServe
from slice_ros.scheduling.baselines.orca import Orca
from slice_ros.scheduling.baselines.slice_static import SliceStatic
from slice_ros.scheduling.policy import Capacity, Policy
from slice_ros.scheduling.slice.slice_policy import Slice

POLICIES: dict[str, type[Policy]] = {
    'fastserve': FastServe,
    'orca': Orca,
    'slice': Slice,
    'slice_static': SliceStatic,
}


def policy_names() -> tuple[str, ...]:
    """Return the names that `make_policy` knows, in alphabetical order."""
    return tuple(sorted(POLICIES))


def make_policy(name: str, capacity: Capacity | None = None, **options) -> Policy:
    """Make the policy `name`; `options` are its own (``capacity_ratio`` of ``slice_static`` ...).

    Raises ``ValueError`` naming the known policies, or the option that is not one.
    """
    if name not in POLICIES:
        raise ValueError(
            f'unknown policy {name!r:.80}: choose one of {", ".join(policy_names())}')
    try:
        return POLICIES[name](capacity or Capacity(), **options)
    except TypeError as error:
        raise ValueError(f'policy {name}: {error}') from error
