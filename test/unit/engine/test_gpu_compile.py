# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Every kernel of a step compiles for GPUs of robots and servers, as a launch would have it.

A GPU changes nothing here.
"""

import json
import os
from pathlib import Path
import subprocess
import sys

import gpu_compiler
import pytest

# KiB of shared memory that a program may have, by compute capability: "maximum amount of shared
# memory per thread block" of the CUDA C++ Programming Guide.
SHARED_KIB = {75: 64, 80: 163, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99, 121: 99}
STEP = {'_rope_and_store', '_attend_split', '_join_splits', '_add_and_norm', '_silu_and_mul',
        '_multiply', '_widen'}
TASKS = [str(capability) for capability in SHARED_KIB] + ['87:0.5b', '120:wide heads']
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope='module')
def kernels():
    """Return what was compiled, one object a kernel, from two processes at once."""
    env = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    env['PYTHONPATH'] = str(ROOT)
    running = [subprocess.Popen([sys.executable, gpu_compiler.__file__, *TASKS[n::2]], env=env,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for n in range(2)]
    found = []
    for process in running:
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
        found += map(json.loads, out.splitlines())
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize('task', TASKS)
def test_every_kernel_compiles_and_fits_into_shared_memory(kernels, task):
    capability, _, shape = task.partition(':')
    mine = [k for k in kernels if k['capability'] == int(capability)
            and k['shape'] == (shape or '8b')]
    assert {k['name'] for k in mine} == STEP
    assert {k['shared'] <= SHARED_KIB[int(capability)] << 10 for k in mine} == {True}


@pytest.mark.timeout(600)
def test_tiles_are_copied_while_others_are_multiplied(kernels):
    """From 8.0 on: by tensor cores, with asynchronous copies and no register in memory."""
    products = [k for k in kernels if k['name'] in ('_attend_split', '_multiply')
                and k['capability'] >= 80]
    assert len(products) >= 5 * (len(TASKS) - 1)
    for kernel in products:
        assert kernel['copies'] > 16 and kernel['products'] > 0, kernel
    assert not any(k['spilled'] for k in kernels if k['capability'] >= 80)
