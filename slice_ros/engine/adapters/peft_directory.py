# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters from the directories that PEFT saves: a config, and one safetensors file."""

from collections.abc import Iterable
from pathlib import Path
import re

import numpy as np
from slice_ros.engine.adapters.adapter_config import AdapterConfig, read_config
from slice_ros.engine.adapters.low_rank import Adapter, JOINED, LowRank
from slice_ros.engine.checkpoints.tensor_files import Tensors
from slice_ros.engine.config import adapter_directories
from slice_ros.engine.models.architecture import Architecture, layer_name
from slice_ros.engine.models.model_tensors import ModelTensors
from slice_ros.errors import ModelError

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
MAX_HEADER_BYTES = 1 << 23   # of the safetensors file: a hundred bytes for each tensor, at most
_TENSOR = re.compile(r'base_model\.model\.(.+)\.lora_([AB])\.weight')


def read_adapters(entries: Iterable[str], made: Architecture) -> list[Adapter]:
    """Return the adapters of `EngineConfig.adapters`, in order, for a model.

    Raises ``ModelError`` with a sentence on what is wrong in a directory.
    """
    adapters = []
    for name, path in adapter_directories(entries).items():
        try:
            adapters.append(Adapter(name, _parts(Path(path), made)))
        except ModelError as error:
            raise ModelError(f'the adapter {name} cannot be loaded: {error}') from error
    return adapters


def _parts(path: Path, made: Architecture) -> dict[tuple[int, str], LowRank]:
    if made.recurrence is not None:
        raise ModelError('models with recurrent layers take none: leave engine.adapters empty')
    config = read_config(path / CONFIG)
    tensors = _open(path)
    ups = _Ups()
    model = ModelTensors(made, ups)
    shapes = {name.removesuffix('.weight'): shape for name, shape in model.needed()
              if name.startswith('model.layers.') and len(shape) == 2
              and not model.of_experts(name)}
    stems = _stems(path, tensors, shapes)
    for stem in stems:
        _check_shapes(path, tensors, stem, config.rank_of(stem), shapes[stem])
    downs = {}
    for stem in stems:
        downs[stem], ups[stem] = _numbers(path, tensors, stem, config)
    parts = {}
    for layer in range(len(made.layers)):
        for part in [part for matrix in JOINED for part in matrix]:
            name = f'{layer_name(layer, part)}.weight'
            stem = model.stored_name(name).removesuffix('.weight')
            if stem in downs:
                parts[layer, part] = LowRank(downs[stem], model.floats(name))
    return parts


class _Ups(dict):
    """Matrices `up` by the names of the file, as `ModelTensors` reads those of a checkpoint."""

    def floats(self, name: str) -> np.ndarray:
        return self[name.removesuffix('.weight')]


def _open(path: Path) -> Tensors:
    file = path / WEIGHTS
    try:
        with file.open('rb') as opened:
            size = int.from_bytes(opened.read(8), 'little')
    except OSError as error:
        pickled = (path / 'adapter_model.bin').exists()
        raise ModelError(f'{file} cannot be read ({error.strerror})' + (
            ': pickled weights can run code and are never loaded; convert them to safetensors'
            if pickled else ': put the weights of the adapter there')) from error
    if size > MAX_HEADER_BYTES:
        raise ModelError(f'{file} has a header of {size} bytes: it is damaged, or no adapter')
    return Tensors(file)


def _stems(path: Path, tensors: Tensors, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Return the names of the matrices that an adapter adds to; each has both of its tensors."""
    found: dict[str, set[str]] = {}
    for name in tensors.names():
        match = _TENSOR.fullmatch(name)
        if match is None or match[1] not in shapes:
            raise ModelError(
                f'{path}: tensor {name[:200]} is of no matrix of the layers of this model '
                f'(such as base_model.model.{next(iter(shapes))}.lora_A.weight): adapters of '
                'other parts, kinds or models are not served')
        found.setdefault(match[1], set()).add(match[2])
    if not found:
        raise ModelError(f'{path}: {WEIGHTS} holds no tensor')
    for stem, sides in found.items():
        if len(sides) < 2:
            raise ModelError(f'{path}: {stem} has lora_{sides.pop()} alone: the file is '
                             'incomplete')
    return list(found)


def _check_shapes(path: Path, tensors: Tensors, stem: str, rank: int,
                  shape: tuple[int, ...]) -> None:
    outputs, inputs = shape
    for side, wanted in (('A', (rank, inputs)), ('B', (outputs, rank))):
        found = tensors.shape(_name(stem, side))
        if found != wanted:
            raise ModelError(
                f'{path}: {stem}.lora_{side} has the shape {list(found)!s:.80}, and the model '
                f'with the rank in {CONFIG} wants {list(wanted)}: it is of another model, or '
                'damaged')


def _numbers(path: Path, tensors: Tensors, stem: str, config: AdapterConfig
             ) -> tuple[np.ndarray, np.ndarray]:
    """Return A and the scaled B of a matrix."""
    down, up = (tensors.floats(_name(stem, side)) for side in 'AB')
    up = up * np.float32(config.scale_of(stem))
    if not (np.isfinite(down).all() and np.isfinite(up).all()):
        raise ModelError(f'{path}: {stem} holds numbers that are not finite: it is damaged')
    return down, up


def _name(stem: str, side: str) -> str:
    return f'base_model.model.{stem}.lora_{side}.weight'
