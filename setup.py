# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""
Build the package with CMakeLists.txt and hand the result to setuptools.

The same CMakeLists.txt serves colcon and pip: this file runs it, installs into a staging folder
and splits that folder in two: what lies in site-packages becomes the Python package, everything
else (lib/, share/, include/) becomes data files of the environment's prefix. With
SLICE_CLIENT_ONLY=1 it is what a planner needs: interfaces, client library and their programs.
"""

import configparser
import os
from pathlib import Path
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree

from setuptools import Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
PACKAGE_XML = ElementTree.parse(ROOT / 'package.xml').getroot()
NAME = PACKAGE_XML.findtext('name')
CLIENT_ONLY = os.environ.get('SLICE_CLIENT_ONLY', '') == '1'
CLIENT_MODULES = (ROOT / 'cmake' / 'client_modules.txt').read_text().split()
LISTS = configparser.ConfigParser()
LISTS.read(ROOT / 'setup.cfg')


def lines_of(option):
    """Return a list of the section `slice_ros` of setup.cfg."""
    return LISTS['slice_ros'][option].strip().splitlines()


def programs():
    """Return the console scripts of which the modules are installed."""
    return [line for line in lines_of('console_scripts') if not CLIENT_ONLY
            or line.split(' = ')[1].split(':')[0].replace('.', '/') + '.py' in CLIENT_MODULES]


def ros_prefixes():
    """Return the prefixes whose site-packages carry ROS packages, in order of `sys.path`."""
    prefixes = []
    for entry in map(Path, sys.path):
        for prefix in entry.parents:
            if (prefix / 'share' / 'rosidl_default_generators').is_dir():
                prefixes.append(str(prefix))
                break
    ament = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return list(dict.fromkeys(prefixes + [prefix for prefix in ament if prefix]))


class CMakeBuild(build):
    """Configure, build and install CMakeLists.txt; the build folder is kept for the next time."""

    def run(self):
        """Fill `build_lib` and the distribution's data files."""
        # Each kind of build has a folder of its own, which stays valid beside the other's.
        build_folder = Path(self.build_temp + ('-client' if CLIENT_ONLY else '')).resolve()
        stage = build_folder / 'stage'
        self.run_cmake(build_folder, stage)
        site_packages = stage / Path(sysconfig.get_path(
            'purelib', 'posix_prefix', {'base': str(stage), 'platbase': str(stage)}))
        shutil.rmtree(self.build_lib, ignore_errors=True)
        shutil.copytree(site_packages / NAME, Path(self.build_lib) / NAME,
                        ignore=shutil.ignore_patterns('__pycache__'))
        folders = {}
        for path in sorted(stage.rglob('*')):
            folder = path.parent.relative_to(stage).as_posix()
            # ament notes where the build found ROS: a temporary folder where pip isolates builds.
            if folder.endswith('/parent_prefix_path'):
                continue
            if path.is_file() and not path.is_relative_to(site_packages):
                folders.setdefault(folder, []).append(os.path.relpath(path, ROOT))
        self.distribution.data_files = list(folders.items())
        super().run()

    def run_cmake(self, build_folder, stage):
        """Run the three steps of CMake, starting afresh where the ROS packages have moved."""
        prefixes = ros_prefixes()
        configure = ['cmake', '-S', str(ROOT), '-B', str(build_folder),
                     f'-DCMAKE_INSTALL_PREFIX={stage}',
                     f'-DCMAKE_PREFIX_PATH={";".join(prefixes)}',
                     f'-DPython3_EXECUTABLE={sys.executable}',
                     f'-DSLICE_CLIENT_ONLY={"ON" if CLIENT_ONLY else "OFF"}',
                     '-DPython3_FIND_VIRTUALENV=ONLY', '-DBUILD_TESTING=OFF',
                     # Generated message code only copies fields: -O1 takes half the time of -O3.
                     '-DCMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG',
                     '-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG']
        env = dict(os.environ, AMENT_PREFIX_PATH=os.pathsep.join(prefixes))
        jobs = os.environ.get('CMAKE_BUILD_PARALLEL_LEVEL', str(os.cpu_count()))
        configured = build_folder / 'configured_with.txt'
        if not configured.is_file() or configured.read_text() != '\n'.join(configure):
            shutil.rmtree(build_folder, ignore_errors=True)
            build_folder.mkdir(parents=True)
            subprocess.run(configure, check=True, env=env)
            configured.write_text('\n'.join(configure))
        shutil.rmtree(stage, ignore_errors=True)
        for command in (['cmake', '--build', str(build_folder), '--parallel', jobs],
                        ['cmake', '--install', str(build_folder)]):
            subprocess.run(command, check=True, env=env)


class BinaryDistribution(Distribution):
    """A distribution with compiled libraries that setuptools did not compile itself."""

    def has_ext_modules(self):
        """Return True: the wheel is for this platform and this Python."""
        return True


setup(
    name=NAME,
    version=PACKAGE_XML.findtext('version') + ('+client' if CLIENT_ONLY else ''),
    description=' '.join(PACKAGE_XML.findtext('description').split()),
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license=PACKAGE_XML.findtext('license'),
    license_files=['LICENSE'],
    maintainer=PACKAGE_XML.findtext('maintainer'),
    maintainer_email=PACKAGE_XML.find('maintainer').get('email'),
    install_requires=(lines_of('client_requires')
                      + ([] if CLIENT_ONLY else lines_of('engine_requires'))),
    extras_require={} if CLIENT_ONLY else {'vllm': lines_of('vllm_requires')},
    entry_points={'console_scripts': programs()},
    packages=[],
    zip_safe=False,
    cmdclass={'build': CMakeBuild},
    distclass=BinaryDistribution,
)
