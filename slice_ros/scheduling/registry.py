# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The scheduling policies by name.

A new policy of this package is a file of its own and a line in `POLICIES`. Another package adds
one by the entry-point group ``slice_ros.policies``: its name, and ``module:Class`` of a `Policy`.
"""

from importlib.metadata import entry_points, EntryPoint

from slice_ros.scheduling.baselines.density import Density
from slice_ros.scheduling.baselines.edf import Edf
from slice_ros.scheduling.baselines.fastserve import FastServe
from slice_ros.scheduling.baselines.orca import Orca
from slice_ros.scheduling.baselines.priority import Priority
from slice_ros.scheduling.baselines.sarathi import Sarathi
from slice_ros.scheduling.baselines.scorpio import Scorpio
from slice_ros.scheduling.baselines.slice_static import SliceStatic
from slice_ros.scheduling.baselines.tempo import Tempo
from slice_ros.scheduling.contract import FAULTS
from slice_ros.scheduling.policy import Capacity, Policy
from slice_ros.scheduling.policy_options import make_options
from slice_ros.scheduling.slice.slice_policy import Slice

GROUP = 'slice_ros.policies'

POLICIES: dict[str, type[Policy]] = {
    'density': Density,
    'edf': Edf,
    'fastserve': FastServe,
    'orca': Orca,
    'priority': Priority,
    'sarathi': Sarathi,
    'scorpio': Scorpio,
    'slice': Slice,
    'slice_static': SliceStatic,
    'tempo': Tempo,
}


def policy_names() -> tuple[str, ...]:
    """Return the names that `make_policy` knows, in alphabetical order; imports no package."""
    return tuple(sorted({*POLICIES, *_plug_ins()}))


def policy_class(name: str) -> type[Policy]:
    """Return the class of the policy `name`; a name of `POLICIES` wins over an entry point.

    Raises ``ValueError`` naming the known policies, or, with its distribution, the entry point
    that cannot be imported or is no `Policy`.
    """
    if name in POLICIES:
        return POLICIES[name]
    plug_in = _plug_ins().get(name)
    if plug_in is None:
        raise ValueError(
            f'unknown policy {name!r:.80}: choose one of {", ".join(policy_names())}')
    origin = f'{plug_in.value} of {plug_in.dist.name if plug_in.dist else "an unknown package"}'
    try:
        found = plug_in.load()
    except FAULTS as error:  # a module of another package can raise anything
        raise ValueError(f'policy {name} ({origin}) cannot be imported: {_line(error)}') from error
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ValueError(f'policy {name} ({origin}) is no subclass of slice_ros.scheduling.policy.'
                         'Policy')
    return found


def make_policy(name: str, capacity: Capacity | None = None, **options) -> Policy:
    """Make the policy `name`; `options` are fields of its `Policy.Options`.

    Raises ``ValueError`` as `policy_class` does, and naming the option that is unknown or has a
    wrong value.
    """
    policy_type = policy_class(name)
    try:
        policy = policy_type(capacity or Capacity(), make_options(name, policy_type, options))
        policy.name = name
    except ValueError:
        raise
    except FAULTS as error:  # so can its constructor
        raise ValueError(f'policy {name} cannot be made: {_line(error)}') from error
    if not isinstance(policy, Policy):
        raise ValueError(f'policy {name} cannot be made: its class makes something else')
    return policy


def _plug_ins() -> dict[str, EntryPoint]:
    """Return the entry points by name, without those whose name a built-in policy has."""
    found: dict[str, EntryPoint] = {}
    for plug_in in entry_points(group=GROUP):
        if plug_in.name not in POLICIES:
            found.setdefault(plug_in.name, plug_in)
    return found


def _line(error: BaseException) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split()):.300}'
