# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``adapter_config.json`` of PEFT: what of it changes the numbers of a LoRA adapter.

A field that is not known here must ask for nothing (null, false, empty): a new kind of adapter is
refused by the name of its field, and never read as if it were plain LoRA.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
import re

from slice_ros.errors import ModelError

MAX_CONFIG_BYTES = 1 << 16
MAX_RANK = 512
MAX_ALPHA = 1e6
_MATTERS = ('peft_type', 'r', 'lora_alpha', 'use_rslora', 'rank_pattern', 'alpha_pattern',
            'bias', 'init_lora_weights')
# Where the adapter came from and how it was trained; which matrices it has, its tensors say.
_NO_MATTER = ('auto_mapping', 'base_model_name_or_path', 'eva_config', 'exclude_modules',
              'inference_mode', 'layers_pattern', 'layers_to_transform', 'lora_dropout',
              'megatron_core', 'peft_version', 'qalora_group_size', 'revision', 'target_modules',
              'task_type')
# Others begin by changing the weights of the model, which an adapter does not have.
_BEGINNINGS = (True, False, None, 'gaussian', 'eva', 'orthogonal')
_PLAIN = re.compile(r'\^?[\w.]+')   # names; PEFT takes any expression


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Ranks and scales of an adapter, of all its matrices or by the ends of their names."""

    rank: int
    alpha: float
    by_root: bool    # scales are alpha / sqrt(rank), else alpha / rank
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def rank_of(self, stem: str) -> int:
        """Return the rank of a matrix."""
        return _matching(self.ranks, stem, self.rank)

    def scale_of(self, stem: str) -> float:
        """Return what the product of the two matrices is multiplied by."""
        rank = self.rank_of(stem)
        return _matching(self.alphas, stem, self.alpha) / (
            math.sqrt(rank) if self.by_root else rank)


def _matching(pattern: Mapping[str, float], stem: str, otherwise: float) -> float:
    """Return the value of the first name in a pattern that a matrix has, or ends with."""
    for name, value in pattern.items():
        plain = name.removeprefix('^')
        if stem == plain or plain == name and stem.endswith(f'.{name}'):
            return value
    return otherwise


def read_config(path: Path) -> AdapterConfig:
    """Read the file `path`. Raises ``ModelError`` for an adapter that cannot be used."""
    values = _object(path)
    kind = values.get('peft_type')
    if kind != 'LORA':
        raise _refused(path, 'peft_type', kind, 'LORA, the only kind that is served')
    for name, value in values.items():
        if name not in _MATTERS and name not in _NO_MATTER and value not in (
                None, False, 0, '', [], {}):
            raise _refused(path, name, value, 'left out: no such adapters are served')
    if values.get('bias', 'none') != 'none':
        raise _refused(path, 'bias', values['bias'], 'none: biases of an adapter are not served')
    beginning = values.get('init_lora_weights')
    if not any(beginning is one or isinstance(one, str) and beginning == one
               for one in _BEGINNINGS):
        raise _refused(path, 'init_lora_weights', beginning, 'one that leaves the weights of the '
                       'model as they are: save it with path_initial_model_for_weight_conversion')
    by_root = values.get('use_rslora', False)
    if not isinstance(by_root, bool):
        raise _refused(path, 'use_rslora', by_root, 'true or false')
    _check_rank(path, 'r', values.get('r'))
    _check_alpha(path, 'lora_alpha', values.get('lora_alpha'))
    return AdapterConfig(values['r'], values['lora_alpha'], by_root,
                         _pattern(path, values, 'rank_pattern', _check_rank),
                         _pattern(path, values, 'alpha_pattern', _check_alpha))


def _object(path: Path) -> dict:
    try:
        with path.open('rb') as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ValueError(f'it has more than {MAX_CONFIG_BYTES} bytes')
        values = json.loads(data)
        if not isinstance(values, dict):
            raise ValueError('it is no JSON object')
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f'{path} cannot be read ({error!s:.200}): engine.adapters names '
                         'directories that PEFT has saved') from error
    return values


def _pattern(path: Path, values: dict, field_name: str, check) -> dict:
    found = values.get(field_name) or {}
    if not isinstance(found, dict):
        raise _refused(path, field_name, found, 'a JSON object')
    for name, value in found.items():
        if not _PLAIN.fullmatch(name):
            raise _refused(path, field_name, name, 'by names of matrices, not by expressions')
        check(path, f'{field_name}[{name!r:.80}]', value)
    return found


def _check_rank(path: Path, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        raise _refused(path, name, value, f'a whole number from 1 to {MAX_RANK}')


def _check_alpha(path: Path, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
            abs(value) <= MAX_ALPHA):
        raise _refused(path, name, value, f'a number, {MAX_ALPHA:g} at most')


def _refused(path: Path, name: str, value: object, wanted: str) -> ModelError:
    return ModelError(f'{path}: {name[:120]} is {value!r:.80}, which must be {wanted}')
