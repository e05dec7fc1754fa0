# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters with random numbers, as PEFT saves them, and models that they are merged into."""

import copy
import json
import math

from safetensors.torch import save_file
import torch

ALL = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')


def matrices(model, targets=ALL, layers=None):
    """Return the linear layers of a model that an adapter adds to, by name."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.split('.')[-1] in targets
            and (layers is None or int(name.split('.')[2]) in layers)}


def save(path, model, seed=1, rank=4, alpha=6, targets=ALL, layers=None, strength=0.3, **config):
    """Write an adapter directory; return its (A, B, scale) by matrix."""
    path.mkdir(parents=True, exist_ok=True)
    dice, made, tensors = torch.Generator().manual_seed(seed), {}, {}
    for name, module in matrices(model, targets, layers).items():
        ranks, alphas = config.get('rank_pattern', {}), config.get('alpha_pattern', {})
        end = name.split('.')[-1]
        size, grade = ranks.get(end, rank), alphas.get(end, alpha)
        down = torch.randn(size, module.in_features, generator=dice) / math.sqrt(
            module.in_features)
        up = torch.randn(module.out_features, size, generator=dice) * strength
        scale = grade / (math.sqrt(size) if config.get('use_rslora') else size)
        made[name] = down, up, scale
        for side, matrix in (('A', down), ('B', up)):
            tensors[f'base_model.model.{name}.lora_{side}.weight'] = matrix
    save_file(tensors, str(path / 'adapter_model.safetensors'))
    (path / 'adapter_config.json').write_text(json.dumps({
        'peft_type': 'LORA', 'r': rank, 'lora_alpha': alpha, 'target_modules': list(targets),
        'bias': 'none', 'use_rslora': False, 'use_dora': False, 'fan_in_fan_out': False,
        'modules_to_save': None, 'rank_pattern': {}, 'alpha_pattern': {}, 'lora_dropout': 0.1,
        'init_lora_weights': True, 'inference_mode': True, 'task_type': 'CAUSAL_LM',
        'base_model_name_or_path': 'somewhere', 'megatron_core': 'megatron.core'} | config))
    return made


@torch.no_grad()
def merged(model, adapter):
    """Return a copy of a model whose weights have those of an adapter added."""
    both = copy.deepcopy(model)
    for name, (down, up, scale) in adapter.items():
        both.get_submodule(name).weight += scale * up @ down
    return both
