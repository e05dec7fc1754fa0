# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The scheduler for vLLM: ``vllm serve MODEL --scheduler-cls slice_ros.vllm.SliceScheduler``.

The policies of `scheduling` plan the steps of vLLM's engine; no ROS. `slice_scheduler` alone
imports vLLM, `step_planner` asks the policy, `mirror` is what a policy sees of a request of
vLLM's, and `vllm_options` and `objectives` read what the operator and the callers set.
"""


def __getattr__(name: str):
    """Import `SliceScheduler` when it is asked for: all else here works without vLLM."""
    if name != 'SliceScheduler':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from slice_ros.vllm.slice_scheduler import SliceScheduler
    return SliceScheduler
