# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files of tiny models, as llama.cpp's converter writes them."""

import gguf
import numpy as np
from tokenizers import pre_tokenizers

VOCABULARY = 320   # of `tiny`


# Whose rope llama.cpp lets pair neighbours.
PAIRED = ('llama', 'granite', 'granitemoe', 'granitehybrid', 'smollm3', 'mistral3')
# Whose norms subtract the mean.
CENTRED = {'command-r': 'layer_norm_eps', 'cohere2': 'layer_norm_eps', 'nemotron': 'norm_eps'}
# What stays in float32, of state spaces and of norms.
EXACT = ('q_norm.weight', 'k_norm.weight', 'linear_attn.conv1d.weight', '.A_log', '.D',
         '.dt_proj.bias', 'mamba.norm.weight', 'mixer.norm.weight')


def write(path, arch, config, state, rope=(), kv_heads=None, describe=None, types=()):
    """Write float16 tensors; `kv_heads` may be one number a layer.

    `describe(writer)` may add metadata. `types` are pairs of a part of the names of matrices and
    the GGUF type that these get instead.
    """
    heads = config.num_attention_heads
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads or config.num_key_value_heads)
    if arch in CENTRED:
        writer.add_layer_norm_eps(getattr(config, CENTRED[arch]))
    else:
        writer.add_layer_norm_rms_eps(next(getattr(config, name) for name in (
            'rms_norm_eps', 'layer_norm_epsilon', 'norm_eps') if hasattr(config, name)))
    rope_parameters = getattr(config, 'rope_parameters', None) or {'rope_theta': 10000.0}
    rope_parameters = rope_parameters.get('full_attention', rope_parameters)
    stretched = rope_parameters.get('alpha', 1) ** (config.head_dim / (config.head_dim - 2)
                                                    if arch == 'hunyuan-dense' else 1)
    writer.add_rope_freq_base(rope_parameters['rope_theta'] * stretched)
    if describe is not None:
        describe(writer)
    for name, tensor in spaces(config, split_experts(state)):
        if name == 'lm_head.weight' and config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        if is_shifted(arch, name):
            values = values + 1
        if 'linear_attn' in name:
            values = tiled(config, name, values)
        if arch in PAIRED and ('q_proj' in name or 'k_proj' in name):
            n = heads if 'q_proj' in name else config.num_key_value_heads
            values = values.reshape(n, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(
                values.shape)
        if 'conv.conv' in name:
            values = values[:, 0]
        kind = next((kind for part, kind in types if part in name and values.ndim > 1),
                    'F16' if values.ndim > 1 and not name.endswith(EXACT) else 'F32')
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(names.get_name(name, ('.weight', '.bias')),
                          gguf.quantize(values, kind), raw_dtype=kind)
    for name, values in rope:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def is_shifted(arch, name):
    """Return whether a tensor is a norm that has one less in a directory."""
    return name.endswith('norm.weight') and 'linear_attn' not in name and (
        arch.startswith(('gemma', 'qwen35')) or arch == 'nemotron')


def tiled(config, name, values):
    """Return a tensor of a delta rule: the first value heads of all key heads come first."""
    keys, size = config.linear_num_key_heads, config.linear_value_head_dim
    heads = np.arange(config.linear_num_value_heads).reshape(keys, -1).T.reshape(-1, 1)
    if 'norm' in name:
        return values
    if 'out_proj' in name:
        return values[:, (heads * size + np.arange(size)).reshape(-1)]
    size = 1 if name.endswith(('_a.weight', '_b.weight', 'A_log', '.bias')) else size
    first = len(values) - heads.size * size   # of the values, behind queries and keys
    return np.concatenate((
        values[:first], values[first + (heads * size + np.arange(size)).reshape(-1)]))


def split_experts(state):
    """Yield names and tensors; gates and ups of experts in a tensor each, as in the file."""
    in_turns = any('sinks' in name for name in state)   # as GPT-OSS has them
    for name, tensor in state.items():
        layer, _, part = name.replace('block_sparse_moe', 'mlp').partition('.mlp.')
        if in_turns and part.startswith('experts.'):
            yield from _in_turns(f'{layer}.mlp.experts', part, tensor)
            continue
        name = f'{name}.weight' if name.endswith('sinks') else name
        if part == 'experts.gate_up_proj':
            for which, half in zip(('gate', 'up'), tensor.chunk(2, 1)):
                yield f'{layer}.mlp.experts.{which}_proj.weight', half
        elif part == 'experts.down_proj':
            yield f'{layer}.mlp.{part}.weight', tensor
        else:
            yield name.replace('block_sparse_moe.router', 'mlp.gate'), tensor


def _in_turns(experts, part, tensor):
    kind = 'bias' if part.endswith('bias') else 'weight'
    tensor = tensor if kind == 'bias' else tensor.transpose(1, 2)
    if 'gate_up' in part:
        yield f'{experts}.gate_proj.{kind}', tensor[:, ::2].contiguous()
        yield f'{experts}.up_proj.{kind}', tensor[:, 1::2].contiguous()
    else:
        yield f'{experts}.down_proj.{kind}', tensor.contiguous()


def spaces(config, state):
    """Yield names and tensors as the file has those of state spaces, and shared MLPs."""
    for name, tensor in state:
        if config.model_type == 'nemotron_h':
            name = name.replace('correction_bias', 'correction.bias')
            name = (f'{name.replace("mixer", "mlp")}.weight' if '.mixer.experts.' in name
                    else name.replace('model.', 'backbone.', 1))
        if name.endswith('.A_log'):
            tensor = -tensor.exp()
        if name.endswith(('.A_log', '.D')) and 'linear_attn' not in name:
            tensor = tensor[:, None]
        elif name.endswith(('mamba.norm.weight', 'mixer.norm.weight')):
            groups = getattr(config, 'mamba_n_groups', None) or config.n_groups
            tensor = tensor.reshape(groups, -1)
        elif 'conv1d.weight' in name:
            tensor = tensor[:, 0]
        layer, _, part = name.partition('.shared_mlp.')
        kind = 'shared_experts' if getattr(config, 'num_local_experts', 0) else 'feed_forward'
        if part == 'input_linear.weight':
            for which, half in zip(('gate', 'up'), tensor.chunk(2)):
                yield f'{layer}.mlp.{kind}.{which}_proj.weight'.replace(
                    'mlp.feed_forward', 'feed_forward'), half
        elif part and kind == 'feed_forward':
            yield f'{layer}.feed_forward.down_proj.weight', tensor
        else:
            yield name.replace('.dt_bias', '.dt_proj.bias'), tensor


def add_bytes(writer):
    """Write a tokenizer with one token a byte; no token of it ends an answer."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('default')
    writer.add_token_list([*letters, *(f'<|{i}|>' for i in range(VOCABULARY - len(letters)))])
    writer.add_token_merges(['a b'])
