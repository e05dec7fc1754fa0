# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What computes: the kind of machine, and how many threads of it."""

import os
from pathlib import Path
import platform

_SIBLINGS = '/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list'


def compute_threads(wanted: int) -> int:
    """Return `wanted`, or where it is 0 the default: that of torch, which need not be imported.

    That is OMP_NUM_THREADS where it is set, else the number of cores that this process may use. A
    second thread of a core would have no arithmetic units of its own.
    """
    if wanted:
        return wanted
    said = os.environ.get('OMP_NUM_THREADS', '').partition(',')[0].strip()
    if said.isdecimal() and int(said):
        return int(said)
    allowed = os.sched_getaffinity(0)
    try:
        return len({Path(_SIBLINGS.format(cpu)).read_text() for cpu in allowed})
    except OSError:
        return len(allowed)


def machine(device: str) -> str:
    """Return what kind of machine computes: the name of its GPU, or of its processor."""
    if device.startswith('cuda'):
        import torch
        if torch.cuda.is_available():   # else vLLM alone sees it, and the engine names it
            return torch.cuda.get_device_name()
    try:
        with open('/proc/cpuinfo') as file:
            names = [line for line in file if line.startswith(('model name', 'CPU part'))]
    except OSError:
        names = []
    return f'{platform.machine()} {platform.processor()} {len(names)} {"".join(names[:1])}'
