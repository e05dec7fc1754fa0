# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What kind of machine this is, and which build of torch belongs on it."""

from dataclasses import dataclass
from pathlib import Path
import platform
import re
import sys

CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
JETPACK_6_INDEX = 'https://pypi.jetson-ai-lab.io/jp6/cu126'
# Jetson Linux is the base of JetPack, with a number of its own (NVIDIA's archive of JetPack).
JETPACK_OF_LINUX = {35: 5, 36: 6, 38: 7}
OLDEST_PYTHON = (3, 10)       # of transformers 5, and of Ubuntu 22.04

# Bytes on disk while it is installed. torch 2.13 for CPUs and all else take 1.3 GB, torch 2.14 for
# CUDA 13 and all else 6.1 GB (`du` of environments on x86-64); pip unpacks beside its downloads.
CPU_BYTES = 3_000_000_000
CUDA_BYTES = 12_000_000_000


class Unsupported(Exception):
    """The engine cannot run on this machine; the text says why, and what to do."""


@dataclass(frozen=True)
class Machine:
    """What decides which torch is installed; `jetpack` is 0 where there is none."""

    processor: str
    jetpack: int = 0
    nvidia: bool = False      # a driver for a GPU in a slot
    python: tuple[int, int] = sys.version_info[:2]


@dataclass(frozen=True)
class Torch:
    """A build of torch: the index that has it ('' for PyPI), bytes on disk with all else, why."""

    index: str
    size: int
    why: str


def this_machine(root: Path = Path('/')) -> Machine:
    """Return the machine whose files are under `root`."""
    jetson_linux = re.search(r'\bR(\d+)\b', _text(root / 'etc/nv_tegra_release'))
    jetpack = JETPACK_OF_LINUX.get(int(jetson_linux[1]), -1) if jetson_linux else 0
    return Machine(platform.machine(), jetpack, (root / 'proc/driver/nvidia').is_dir())


def torch_for(machine: Machine) -> Torch:
    """Return the build of torch for a machine. Raises `Unsupported`."""
    if machine.python < OLDEST_PYTHON:
        raise Unsupported('Python 3.10 or newer is needed, as Ubuntu 22.04 has it')
    if machine.jetpack == 6:
        return Torch(JETPACK_6_INDEX, CUDA_BYTES,
                     'a Jetson with JetPack 6 has CUDA 12.6, for which NVIDIA builds torch')
    if machine.jetpack == 7:
        return Torch('', CUDA_BYTES, 'a Jetson with JetPack 7 has CUDA 13, as torch of PyPI')
    if machine.jetpack:
        raise Unsupported('this JetPack is not known or has a Python that is too old: install '
                          'JetPack 6 or 7')
    if machine.processor not in ('x86_64', 'aarch64'):
        raise Unsupported(f'torch has no packages for {machine.processor}: use x86-64 or Arm in '
                          '64 bits')
    if machine.nvidia:
        return Torch('', CUDA_BYTES, 'the driver of an NVIDIA GPU is loaded')
    return Torch(CPU_INDEX, CPU_BYTES, 'no GPU that torch could use is found: the smaller build')


def _text(path: Path) -> str:
    try:
        return path.read_text(errors='replace')
    except OSError:
        return ''
