# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the files beside the Python package are, whichever way it was installed."""

from pathlib import Path
from xml.etree import ElementTree


def share() -> Path:
    """Return the folder with package.xml and config/: the checkout, or <prefix>/share/slice_ros.

    The latter has no config/ in a planner's build. Raises ``FileNotFoundError`` when there is
    none above this file.
    """
    here = Path(__file__).resolve()
    for parent in here.parents[1:]:
        if (parent / 'package.xml').is_file() and (parent / 'config').is_dir():
            return parent
        folder = parent / 'share' / 'slice_ros'
        if (folder / 'package.xml').is_file():
            return folder
    raise FileNotFoundError(f'no package.xml and config/ above {here}: is slice_ros installed?')


def version() -> str:
    """Return the version of the package, from package.xml."""
    return ElementTree.parse(share() / 'package.xml').findtext('version')
