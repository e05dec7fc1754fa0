# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What every test shares: ROS graphs of our own, and the reasons for which a test may skip."""

import importlib.util
import os

import pytest

# Before any context exists: no other nodes are discovered, and two runs do not see each other.
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_DOMAIN_ID', str(10 + os.getpid() % 90))


def pytest_collection_modifyitems(items):
    """Skip what this machine cannot run, and say what is missing.

    Tests marked `gpu(needed=False)` run on a GPU where there is one, else without.
    """
    reasons = {}
    if any(item.get_closest_marker('gpu') for item in items):
        import torch
        if not torch.cuda.is_available():
            reasons['gpu'] = 'needs a CUDA device: none is visible to torch'
    # Not `launch`: the folder of that name in the checkout can be imported too.
    if importlib.util.find_spec('launch_testing') is None:
        reasons['launch'] = 'needs the ROS 2 launch stack: launch_testing is not installed'
    if importlib.util.find_spec('vllm') is None:
        reasons['vllm'] = 'needs vLLM, which is not installed: make test-vllm'
    if 'SLICE_TEST_VLLM' not in os.environ:
        reasons['vllm_process'] = 'needs vLLM in a Python of its own: make test-vllm-node'
    if 'SLICE_TEST_CLIENT' not in os.environ:
        reasons['client_only'] = 'needs a client-only build: make test-client-only'
    for item in items:
        for marker, reason in reasons.items():
            found = item.get_closest_marker(marker)
            if found and found.kwargs.get('needed', True):
                item.add_marker(pytest.mark.skip(reason=reason))
