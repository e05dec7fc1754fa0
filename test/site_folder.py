# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A distribution of another team, installed into a folder as pip would."""

from collections.abc import Mapping
from pathlib import Path


def install(site: Path, name: str, modules: Mapping[str, str], entry_points: str) -> None:
    """Install `modules`, by name, as the distribution `name` into the folder `site`."""
    for module, text in modules.items():
        (site / f'{module}.py').write_text(text)
    info = site / f'{name.replace("-", "_")}-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(entry_points)
