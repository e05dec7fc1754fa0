# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers on their way from the device to the host, which goes on until it needs them."""

from collections.abc import Callable

import torch


def fetch(numbers: torch.Tensor) -> Callable[[], list]:
    """Have `numbers` copied to the host; return what gives them as a list.

    That call waits for whatever the device had to do until now, even if there are no numbers. It
    lets errors of the device through. Without a GPU there is nothing to wait for.
    """
    if numbers.device.type != 'cuda':
        return numbers.tolist
    host = numbers.to('cpu', non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(numbers.device))

    def arrived() -> list:
        copied.synchronize()
        return host.tolist()
    return arrived
