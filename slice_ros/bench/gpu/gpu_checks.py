# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the GPU path needs of a machine, and what to install where it is missing."""

from dataclasses import dataclass
import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sysconfig
import warnings

from slice_ros.engine.runners.cuda.failure import cuda_refusal
import torch

_PROC = Path('/proc/driver/nvidia')
_ANSWER_S = 30.0   # nvidia-smi starts a sleeping driver first


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPU of a machine and what runs on it; None for what is not there."""

    gpu: str | None           # name of the device that torch uses
    capability: str | None    # compute capability, such as 8.9
    memory_gib: float | None
    driver: str | None        # version of the NVIDIA driver, 'of unknown version' if it is silent
    torch: str
    cuda: str | None          # version of CUDA that this torch is built for
    refusal: str              # what torch says where it finds no device, else ''
    triton: str | None
    compiler: str | None      # path of the C compiler that Triton would take
    headers: str              # where Python.h must be
    has_headers: bool


def find_machine() -> Machine:
    """Look for all that the GPU path needs."""
    gpu = capability = memory = None
    refusal = ''
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')   # of an old driver: it is in `refusal` as well
        if torch.cuda.is_available():
            found = torch.cuda.get_device_properties(0)
            gpu, capability = found.name, f'{found.major}.{found.minor}'
            memory = found.total_memory / 2**30
        else:
            refusal = cuda_refusal()
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    return Machine(gpu, capability, memory, _driver(), torch.__version__, torch.version.cuda,
                   refusal, _triton(), _compiler(), str(header), header.is_file())


def missing(machine: Machine) -> list[str]:
    """Return a sentence for each thing that is missing, with what to install or to change."""
    found = []
    if machine.gpu is None and machine.driver is None:
        found.append('no GPU was found: there is neither nvidia-smi nor /proc/driver/nvidia; '
                     'install the NVIDIA driver, or run this on a machine with an NVIDIA GPU')
    elif machine.gpu is None and machine.cuda is not None and 'too old' in machine.refusal:
        found.append(f'the NVIDIA driver {machine.driver} is too old for torch {machine.torch}, '
                     f'which is built for CUDA {machine.cuda}: install a newer driver, or a torch '
                     f'for the CUDA version that nvidia-smi shows ({machine.refusal})')
    elif machine.gpu is None and machine.cuda is not None:
        found.append(f'the NVIDIA driver {machine.driver} is there, but torch finds no GPU '
                     f'({machine.refusal}): pass the GPU on to a container (--gpus all), unset '
                     'CUDA_VISIBLE_DEVICES, and see what nvidia-smi says')
    if machine.cuda is None:
        found.append(f'torch {machine.torch} is not built for CUDA: install a CUDA build of torch '
                     '(https://pytorch.org/get-started/locally)')
    if machine.triton is None:
        found.append("Triton is not installed: pip install triton; torch's CUDA builds bring it")
    if machine.compiler is None:
        found.append('no C compiler was found, with which Triton builds its launcher: sudo apt '
                     'install gcc, or name one in the environment variable CC')
    if not machine.has_headers:
        python = '.'.join(platform.python_version_tuple()[:2])
        found.append(f'the headers of Python {python} are missing ({machine.headers}), with which '
                     f'Triton builds its launcher: sudo apt install python{python}-dev')
    return found


def _driver() -> str | None:
    program = shutil.which('nvidia-smi')
    if program is not None:
        try:
            done = subprocess.run([program, '--query-gpu=driver_version', '--format=csv,noheader'],
                                  capture_output=True, text=True, timeout=_ANSWER_S)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[0]
    try:
        version = re.search(r'\d+\.\d+(\.\d+)?', (_PROC / 'version').read_text())
    except OSError:
        version = None
    if version is not None:
        return version[0]
    return 'of unknown version' if program is not None or _PROC.exists() else None


def _triton() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return triton.__version__


def _compiler() -> str | None:
    """Return the C compiler that Triton takes, in its order."""
    named = os.environ.get('CC')
    return shutil.which(named) if named else shutil.which('gcc') or shutil.which('clang')
