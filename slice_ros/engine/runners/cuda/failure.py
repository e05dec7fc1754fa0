# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Why a process has no CUDA, or cannot use the device any more."""

from slice_ros.errors import one_line


def cuda_failure(device: str) -> str | None:
    """Return what every call of CUDA in this process fails with from now on; None if none does.

    So it is after an illegal access or a failed assertion of a kernel ("sticky" errors). Waits for
    the device.
    """
    if device != 'cuda':
        return None
    import torch
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return one_line(error)
    return None


def cuda_refusal() -> str:
    """Return what torch says where it finds no device: of an old driver, a hidden GPU, a build."""
    import torch
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return one_line(error)
    return 'torch gives no reason'
