# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""
The virtual environment that holds what the engine needs and no ROS distribution has.

`slice_setup` makes it; the programs that colcon installs run in it, without its being activated.
Only the standard library: this runs before anything of it can be imported.
"""

import os
from pathlib import Path
import sys

VARIABLE = 'SLICE_ROS_VENV'   # another folder; empty: none


def folder() -> Path | None:
    """Return where the environment is, or would be; None where `SLICE_ROS_VENV` is empty."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return Path('~/.local/share/slice_ros/venv').expanduser()
    return Path(given).expanduser().absolute() if given else None


def python_of(venv: Path) -> Path:
    """Return the interpreter of an environment."""
    return venv / 'bin' / 'python'


def enter() -> None:
    """
    Go on as the same process in the environment, where there is one.

    Nothing happens inside a virtual environment, activated or entered before, nor where the
    environment belongs to another version of Python, as after an upgrade of the system.
    """
    venv = folder()
    if venv is None or sys.prefix != sys.base_prefix or not python_of(venv).is_file():
        return
    packages = venv / 'lib' / f'python{sys.version_info.major}.{sys.version_info.minor}'
    if not packages.is_dir():
        print(f'{venv} is of another version of Python and is not used: '
              'ros2 run slice_ros slice_setup', file=sys.stderr)
        return
    os.execv(python_of(venv), [str(python_of(venv)), *sys.argv])
