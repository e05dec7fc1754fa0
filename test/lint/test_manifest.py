# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""package.xml, the licence and the lists of dependencies agree with each other."""

import ast
import configparser
import hashlib
from pathlib import Path
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree

from catkin_pkg.package import parse_package
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# The text of the Apache License 2.0 as its authors publish it.
APACHE_2_SHA256 = 'cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30'


def package_names(requirements) -> set[str]:
    """Return the normalised names in lines of requirements."""
    lines = (line.split('#')[0].strip() for line in requirements)
    return {re.sub('[-_.]+', '-', re.match('[A-Za-z0-9._-]+', line)[0].lower())
            for line in lines if line}


def test_manifest_is_valid():
    """The ament tools read package.xml without an error or a warning."""
    warnings = []
    package = parse_package(str(ROOT), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    assert package.name == 'slice_ros'
    assert package.get_build_type() == 'ament_cmake'
    assert [group.name for group in package.member_of_groups] == ['rosidl_interface_packages']


@pytest.mark.parametrize('path', [
    *ROOT.glob('*.xml'), *ROOT.glob('config/**/*.xml')], ids=lambda path: path.name)
def test_xml_is_well_formed(path):
    """As xmllint sees it where it is installed, else as Python's parser does."""
    ElementTree.parse(path)
    if shutil.which('xmllint'):
        done = subprocess.run(['xmllint', '--noout', '--nonet', str(path)],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_licence_is_whole_and_the_same_everywhere():
    """LICENSE is the unchanged text; the manifest names it; no file claims another."""
    text = (ROOT / 'LICENSE').read_bytes()
    assert hashlib.sha256(text).hexdigest() == APACHE_2_SHA256
    licence, = parse_package(str(ROOT)).licenses
    assert (str(licence), licence.file) == ('Apache-2.0', 'LICENSE')
    for folder in ('slice_ros', 'launch', 'cmake'):
        for path in (ROOT / folder).rglob('*'):
            if path.suffix in ('.py', '.cpp', '.hpp', '.h', '.cu', '.cmake', '.txt'):
                identifiers = re.findall(r'SPDX-License-Identifier: *(\S+)', path.read_text())
                assert set(identifiers) <= {'Apache-2.0'}, path


def test_every_source_file_begins_with_its_copyright_and_licence():
    """Two lines on top of each; below the #! where there is one."""
    marks = {'.py': '#', '.cpp': '//', '.hpp': '//', '.h': '//', '.cu': '//'}
    paths = [ROOT / 'setup.py', *(
        path for folder in ('slice_ros', 'test', 'launch') for path in (ROOT / folder).rglob('*')
        if path.suffix in marks and '__pycache__' not in path.parts)]
    assert len(paths) > 200
    for path in paths:
        mark = marks[path.suffix]
        head = (f'{mark} Copyright 2026 The slice_ros Authors\n'
                f'{mark} SPDX-License-Identifier: Apache-2.0\n')
        assert re.sub('^#!.*\n', '', path.read_text()).startswith(head), path


def test_version_is_in_the_changelog():
    """The newest version of CHANGELOG.rst is the one of package.xml, or it is `Forthcoming`."""
    version = parse_package(str(ROOT)).version
    headings = re.findall(r'^(Forthcoming|\d+\.\d+\.\d+.*)\n-+$',
                          (ROOT / 'CHANGELOG.rst').read_text(), re.MULTILINE)
    assert headings and (headings[0] == 'Forthcoming' or headings[0].startswith(version))


def test_development_set_up_installs_all_that_is_declared():
    """What pip would install to build and to run the package is pinned in requirements-dev.txt."""
    setup_cfg = configparser.ConfigParser()
    setup_cfg.read(ROOT / 'setup.cfg')
    lists = setup_cfg['slice_ros']
    runtime = (lists['client_requires'] + lists['engine_requires']).strip().splitlines()
    build = tomllib.loads((ROOT / 'pyproject.toml').read_text())['build-system']['requires']
    pinned = (ROOT / 'requirements-dev.txt').read_text().splitlines()
    assert package_names([*runtime, *build]) - package_names(pinned) == set()
    assert all('==' in line for line in pinned if line and not line.startswith('#'))


def test_rosdep_has_or_is_offered_a_key_for_every_python_package():
    """
    package.xml names packages of distributions, resource/rosdep.yaml proposes keys for the rest.

    A package that is released cannot depend on what pip installs, for which rosdep has keys too.
    """
    setup_cfg = configparser.ConfigParser()
    setup_cfg.read(ROOT / 'setup.cfg')
    lists = setup_cfg['slice_ros']
    others = {'torch': 'pytorch', 'pyyaml': 'yaml', 'py-trees': 'py_trees', 'pillow': 'pil'}
    needed = {others.get(name, name) for name in package_names(
        (lists['client_requires'] + lists['engine_requires']).splitlines())}
    declared = {depend.name for depend in parse_package(str(ROOT)).exec_depends}
    offered = yaml.safe_load((ROOT / 'resource' / 'rosdep.yaml').read_text())
    assert not [name for name in declared if name.endswith('-pip')]
    keys_of_pip = {'pytorch', 'rosbags', 'transformers'}
    missing = {name for name in needed - keys_of_pip if not name.startswith('ros-')
               and not {name, f'python3-{name}'} & declared}
    assert {f'python3-{name}-pip' for name in missing} == set(offered)
    for systems in offered.values():
        assert set(systems) == {'debian', 'ubuntu'}


def test_every_interface_file_is_generated():
    """No file of msg/, srv/ or action/ is missing from CMakeLists.txt."""
    text = (ROOT / 'CMakeLists.txt').read_text()
    listed = set(re.findall(r'^ +((?:msg|srv|action)/\w+\.\w+)$', text, re.MULTILINE))
    present = {path.relative_to(ROOT).as_posix() for kind in ('msg', 'srv', 'action')
               for path in (ROOT / kind).iterdir() if path.suffix == f'.{kind}'}
    assert listed == present


def imported(*paths: Path) -> set[str]:
    """Return the top-level names that these modules import, also inside functions."""
    names = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    return {name.partition('.')[0] for name in names}


def test_every_ros_package_that_is_imported_is_declared():
    """What rosdep does not install is missing on a robot, even if another package brings it."""
    package = parse_package(str(ROOT))
    declared = {depend.name for depend in package.exec_depends}
    ros = {name for name in imported(*(ROOT / 'slice_ros').rglob('*.py'),
                                     *(ROOT / 'launch').glob('*.py'))
           if re.search('^(rclpy|launch|ament_)|_(msgs|interfaces)$', name)}
    assert len(ros) > 8
    assert ros - declared == set()


def test_every_console_script_exists():
    """Each program of setup.cfg names a module of the package that has that function."""
    setup_cfg = configparser.ConfigParser()
    setup_cfg.read(ROOT / 'setup.cfg')
    scripts = setup_cfg['slice_ros']['console_scripts'].strip().splitlines()
    assert scripts
    for script in scripts:
        module, function = script.split(' = ')[1].split(':')
        text = (ROOT / module.replace('.', '/')).with_suffix('.py').read_text()
        assert f'\ndef {function}(' in text, script
