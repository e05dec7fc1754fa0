# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Copying numbers from the device to the host without waiting for them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def fetch(numbers: 'torch.Tensor | np.ndarray') -> Callable[[], list]:
    """Start copying `numbers` to the host; return a function that gives them as a list.

    That function waits until the device has done all work queued so far, even if `numbers` is
    empty. It lets errors of the device through. On CPU it waits for nothing.
    """
    if isinstance(numbers, np.ndarray) or numbers.device.type != 'cuda':
        return numbers.tolist
    import torch
    host = numbers.to('cpu', non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event(blocking=True)  # sleeps: else a core spins for the whole step
    copied.record(torch.cuda.current_stream(numbers.device))

    def arrived() -> list:
        copied.synchronize()
        return host.tolist()
    return arrived
