# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Find the files of `config/`, in a checkout or wherever the package was installed."""

from pathlib import Path


def config_file(kind: str, name: str) -> Path:
    """Return the file `name` says: a path, or a name of ``config/<kind>/`` without its ending.

    Raises ``ValueError`` listing the names there are.
    """
    if Path(name).is_file():
        return Path(name)
    known = _known(kind)
    if name not in known:
        raise ValueError(f'{name!r:.200} is neither a file nor one of the {kind}: '
                         f'{", ".join(sorted(known)) or "none found"}')
    return known[name]


def _known(kind: str) -> dict[str, Path]:
    # From the package upwards: config/ in a checkout, <prefix>/share/slice_ros/config installed.
    for parent in Path(__file__).resolve().parents[1:]:
        for folder in (parent / 'config' / kind, parent / 'share/slice_ros/config' / kind):
            if folder.is_dir():
                return {path.stem: path for path in folder.glob('*.yaml')}
    return {}
