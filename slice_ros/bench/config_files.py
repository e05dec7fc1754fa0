# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Find the files of `config/`, in a checkout or wherever the package was installed."""

from pathlib import Path


def config_file(folder: str, name: str) -> Path:
    """Return the file of `name`: a path, or a name of ``config/<folder>/`` without its ending.

    Raises ``ValueError`` listing the names of the folder.
    """
    if Path(name).is_file():
        return Path(name)
    known = files_of(folder)
    if name not in known:
        raise ValueError(f'{name!r:.200} is neither a file nor one of the {folder}: '
                         f'{", ".join(sorted(known)) or "none found"}')
    return known[name]


def files_of(folder: str) -> dict[str, Path]:
    """Return the YAML files of ``config/<folder>/`` by their names without the ending."""
    # From the package upwards: config/ in a checkout, <prefix>/share/slice_ros/config installed.
    for parent in Path(__file__).resolve().parents[1:]:
        for path in (parent / 'config' / folder, parent / 'share/slice_ros/config' / folder):
            if path.is_dir():
                return {file.stem: file for file in path.glob('*.yaml')}
    return {}
