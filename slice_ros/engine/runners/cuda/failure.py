# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of CUDA after which a process cannot use the device any more."""

from slice_ros.errors import one_line
import torch


def cuda_failure(device: torch.device) -> str | None:
    """Return what every call of CUDA in this process fails with from now on; None if none does.

    So it is after an illegal access or a failed assertion of a kernel ("sticky" errors). Waits for
    the device.
    """
    if device.type != 'cuda':
        return None
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return one_line(error)
    return None
