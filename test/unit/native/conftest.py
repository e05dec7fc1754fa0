# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The native library, built from this checkout where it is not beside its loader yet.

With SLICE_TEST_ARM, a folder with the library for aarch64, it is that one under emulation.
"""

import os
from pathlib import Path
import platform
import subprocess

from emulated import CPUS, Emulated
import pytest
from slice_ros.engine.runners.native import library as native
import torch

SOURCE = Path(native.__file__).parent
ARM = os.environ.get('SLICE_TEST_ARM')
MACHINE = 'aarch64' if ARM else platform.machine()


@pytest.fixture(scope='session', params=CPUS if ARM else ['this processor'])
def library(request, tmp_path_factory):
    """Return the loaded library; each emulated one with SLICE_TEST_ARM."""
    if ARM:
        emulated = Emulated(request.param, ARM)
        assert {isa for isa in range(9) if emulated.has(isa)} == CPUS[request.param]
        yield emulated
        return emulated.close()
    found, why = native.load_library()
    if found is None:
        build = tmp_path_factory.mktemp('native')
        for command in (['cmake', '-S', SOURCE, '-B', build,
                         f'-DSLICE_KERNELS_OUTPUT={build}'],
                        ['cmake', '--build', build, '-j2']):
            subprocess.run(command, check=True, timeout=300, capture_output=True)
        found, why = native.load_library(build / native.FILE_NAME)
    assert found is not None, why
    yield found


ISAS = {'portable': native.PORTABLE}
if MACHINE in ('x86_64', 'AMD64'):
    ISAS |= {'avx2': native.AVX2, 'avxvnni': native.AVXVNNI, 'avx512': native.AVX512}
elif MACHINE in ('aarch64', 'arm64'):
    ISAS |= {'dotprod': native.DOTPROD, 'i8mm': native.I8MM}


@pytest.fixture(params=ISAS)
def isa(request, library):
    """Return each instruction set that this machine has."""
    wanted = ISAS[request.param]
    if not library.has(wanted):
        pytest.skip(f'this processor or build has no {request.param}')
    return wanted


@pytest.fixture(autouse=True)
def two_threads():
    """Keep torch, the reference, from taking the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
