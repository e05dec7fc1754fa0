# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A model directory that is broken or made up to harm ends in one sentence, soon and cheaply."""

import json
import random
import resource
import shutil
import time

from conftest import sampled
import gguf_files
import pytest
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.checkpoints import gguf_file
from slice_ros.errors import ModelError
import tiny


@pytest.fixture(scope='module')
def directories(tmp_path_factory):
    """Return a directory of the flat batch, and one that runs through transformers."""
    made = {}
    for family in (tiny.llama, tiny.gpt2):
        made[family.__name__] = tmp_path_factory.mktemp(family.__name__)
        tiny.save(made[family.__name__], family())
    return made


@pytest.fixture
def copy_of(directories, tmp_path):
    def copy(family='llama'):
        shutil.rmtree(tmp_path / 'model', ignore_errors=True)
        return shutil.copytree(directories[family], tmp_path / 'model')
    return copy


@pytest.fixture(autouse=True)
def soon_and_cheap():
    """Hold every test to seconds, and to what a small model needs."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10


def outcome(path):
    """Return the sentence that refuses a model, '' where it loads."""
    try:
        load_engine(EngineConfig(str(path), max_context=64, slots=1))
    except ModelError as error:
        assert '\n' not in str(error) and len(str(error)) < 1000
        return str(error)
    return ''


def change(path, file, **changes):
    content = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(content | changes))
    return path


HUGE = 10 ** 9


@pytest.mark.parametrize('name, value', [
    ('num_attention_heads', 0), ('num_attention_heads', HUGE), ('num_attention_heads', 3),
    ('num_key_value_heads', 0), ('num_key_value_heads', -1), ('num_key_value_heads', 3),
    ('num_hidden_layers', 0), ('num_hidden_layers', -1), ('num_hidden_layers', HUGE),
    ('num_hidden_layers', 1.5), ('num_hidden_layers', 2 ** 63), ('hidden_size', HUGE),
    ('hidden_size', 0), ('hidden_size', '64'), ('hidden_size', None), ('hidden_size', [64]),
    ('intermediate_size', HUGE), ('intermediate_size', -4), ('intermediate_size', 97),
    ('vocab_size', HUGE), ('vocab_size', True), ('vocab_size', 10 ** 30), ('vocab_size', 319),
    ('head_dim', HUGE), ('head_dim', 0), ('head_dim', 8), ('max_position_embeddings', -5),
    ('max_position_embeddings', 'many'), ('rms_norm_eps', -1.0), ('rms_norm_eps', 'small'),
    ('rms_norm_eps', 1e9), ('sliding_window', -3), ('sliding_window', 'x'),
    ('rope_parameters', 'x'), ('rope_parameters', {'rope_type': 'no_such', 'rope_theta': 1.0}),
    ('rope_parameters', {'rope_type': 'default', 'rope_theta': 0.0}),
    ('rope_parameters', {'rope_type': 'default', 'rope_theta': 10 ** 40}),
    ('rope_parameters', {'rope_type': 'default', 'rope_theta': 'x'}),
    ('rope_parameters', {'rope_type': ['x'], 'rope_theta': 1.0}), ('hidden_act', 7),
    ('num_labels', HUGE), ('num_labels', 'x'), ('id2label', 5), ('layer_types', [1]),
    ('quantization_config', 5), ('text_config', [1]), ('model_type', {}), ('eos_token_id', 'x'),
])
def test_a_config_of_nonsense_says_which(copy_of, name, value):
    assert 'config' in outcome(change(copy_of(), 'config.json', **{name: value}))


@pytest.mark.parametrize('name, value', [
    ('n_layer', HUGE), ('n_layer', -1), ('n_embd', HUGE), ('n_embd', 0), ('n_head', 0),
    ('n_positions', HUGE), ('vocab_size', HUGE), ('sliding_window', ''), ('num_labels', HUGE)])
def test_a_config_of_nonsense_for_another_family_is_refused(copy_of, name, value):
    assert outcome(change(copy_of('gpt2'), 'config.json', **{name: value}))


STRANGE = [0, -1, 7, HUGE, 10 ** 30, 2.5, -0.5, 1e308, 'x', [], [1], {}, {'x': 1}, True, None]
SAMPLE = ('gemma3_text', 'phi3 longrope', 'qwen3_moe', 'falcon_h1')   # one of each kind
OF_FAMILIES = {
    'gemma3_text': ('sliding_window', 'layer_types', 'rope_parameters', 'query_pre_attn_scalar',
                    'attn_logit_softcapping', 'final_logit_softcapping', 'hidden_activation',
                    'use_bidirectional_attention', 'norm_offset', 'num_hidden_layers'),
    'phi3 longrope': ('rope_parameters', 'original_max_position_embeddings', 'head_dim',
                      'num_key_value_heads'),
    'granite': ('embedding_multiplier', 'residual_multiplier', 'attention_multiplier',
                'logits_scaling'),
    'smollm3': ('no_rope_layers', 'layer_types', 'use_sliding_window', 'sliding_window'),
    'qwen3_moe': ('num_experts', 'num_local_experts', 'num_experts_per_tok', 'norm_topk_prob',
                  'moe_intermediate_size', 'decoder_sparse_step', 'mlp_only_layers'),
    'qwen2_moe': ('num_experts', 'moe_intermediate_size', 'shared_expert_intermediate_size',
                  'norm_topk_prob', 'mlp_only_layers', 'sliding_window'),
    'qwen3_5_moe_text': ('num_experts', 'moe_intermediate_size', 'num_experts_per_tok',
                         'shared_expert_intermediate_size', 'layer_types'),
    'gpt_oss': ('num_local_experts', 'num_experts_per_tok', 'swiglu_alpha', 'swiglu_limit',
                'layer_types', 'sliding_window', 'intermediate_size'),
    'ministral3': ('rope_parameters', 'sliding_window', 'head_dim', 'num_key_value_heads'),
    'hunyuan_v1_dense': ('rope_parameters', 'head_dim', 'num_attention_heads', 'rms_norm_eps'),
    'cohere': ('logit_scale', 'use_qk_norm', 'layer_norm_eps', 'num_attention_heads'),
    'cohere2': ('logit_scale', 'layer_norm_eps', 'layer_types', 'sliding_window'),
    'nemotron': ('hidden_act', 'norm_eps', 'head_dim', 'norm_offset', 'intermediate_size'),
    'qwen3_5_text': ('layer_types', 'linear_num_key_heads', 'linear_num_value_heads',
                     'linear_key_head_dim', 'linear_value_head_dim', 'linear_conv_kernel_dim'),
    'lfm2': ('layer_types', 'conv_L_cache', 'conv_bias', 'block_multiple_of', 'norm_eps',
             'block_ffn_dim_multiplier', 'block_auto_adjust_ff_dim'),
    'granitemoe': ('num_local_experts', 'num_experts_per_tok'),
    'granitemoehybrid': ('layer_types', 'mamba_n_heads', 'mamba_d_head', 'mamba_d_state',
                         'mamba_n_groups', 'mamba_d_conv', 'mamba_expand', 'time_step_limit',
                         'shared_intermediate_size', 'position_embedding_type',
                         'num_local_experts', 'mamba_conv_bias'),
    'falcon_h1': ('mamba_d_ssm', 'mamba_n_heads', 'mamba_d_state', 'mamba_n_groups',
                  'mlp_multipliers', 'ssm_multipliers', 'key_multiplier', 'ssm_in_multiplier',
                  'mamba_rms_norm', 'mamba_norm_before_gate', 'lm_head_multiplier'),
    'nemotron_h': ('layers_block_type', 'mamba_num_heads', 'mamba_head_dim', 'ssm_state_size',
                   'n_groups', 'conv_kernel', 'mlp_hidden_act', 'mamba_hidden_act',
                   'time_step_min', 'layer_norm_epsilon', 'num_attention_heads'),
    'nemotron_h experts': ('n_routed_experts', 'num_experts_per_tok', 'moe_intermediate_size',
                           'moe_shared_expert_intermediate_size', 'routed_scaling_factor',
                           'n_group', 'moe_latent_size', 'norm_topk_prob', 'layers_block_type'),
    'exaone4': ('layer_types', 'sliding_window', 'sliding_window_pattern'),
}
SIZES = {
    'granitemoehybrid': ('mamba_n_heads', 'mamba_d_head', 'mamba_d_state', 'mamba_n_groups',
                         'mamba_d_conv', 'shared_intermediate_size'),
    'falcon_h1': ('mamba_n_heads', 'mamba_d_head', 'mamba_d_state', 'mamba_n_groups',
                  'mamba_d_conv', 'mamba_d_ssm'),
    'nemotron_h': ('mamba_num_heads', 'mamba_head_dim', 'ssm_state_size', 'n_groups',
                   'conv_kernel')}
TRIED = 12   # of each family: each takes half a second
ROPE_KEYS = ('rope_type', 'rope_theta', 'factor', 'partial_rotary_factor', 'short_factor',
             'long_factor', 'original_max_position_embeddings', 'alpha', 'llama_4_scaling_beta')


@pytest.mark.parametrize('family, name', [
    (family, name) for family, names in SIZES.items() for name in names])
def test_sizes_of_a_state_space_that_cannot_be_are_refused(family, name, tmp_path):
    tiny.save(tmp_path, tiny.RECURRENT[family]())
    whole = json.loads((tmp_path / 'config.json').read_text())
    for value in (0, -1, HUGE):
        (tmp_path / 'config.json').write_text(json.dumps(whole | {name: value}))
        assert 'config' in outcome(tmp_path), value


@pytest.mark.parametrize('family', sampled(OF_FAMILIES, SAMPLE))
def test_strange_numbers_of_a_family_are_refused_or_run(family, tmp_path):
    """A sentence, or a model that gives numbers; never another exception, nor much memory."""
    tiny.save(tmp_path, (tiny.FAMILIES | tiny.RECURRENT)[family]())
    whole = json.loads((tmp_path / 'config.json').read_text())
    rope = whole.get('rope_parameters') or {}
    strange = [{name: value} for name in OF_FAMILIES[family] for value in STRANGE]
    if 'rope_type' in rope:
        strange += [{'rope_parameters': rope | {key: value}}
                    for key in ROPE_KEYS for value in STRANGE]
    refused = 0
    strange = random.Random(family).sample(strange, TRIED)
    for change_of in strange:
        (tmp_path / 'config.json').write_text(json.dumps(whole | change_of))
        refused += bool(outcome(tmp_path))
    assert refused > TRIED // 4


@pytest.mark.parametrize('family', ['gemma3_text', 'smollm3', 'exaone4'])
def test_a_billion_layers_are_refused_before_each_is_given_a_kind(family, tmp_path):
    tiny.save(tmp_path, tiny.FAMILIES[family]())
    whole = json.loads((tmp_path / 'config.json').read_text())
    for kinds in ('layer_types', 'no_rope_layers'):
        whole.pop(kinds, None)
    (tmp_path / 'config.json').write_text(json.dumps(whole | {'num_hidden_layers': HUGE}))
    assert 'num_hidden_layers' in outcome(tmp_path)


@pytest.mark.parametrize('file', ['config.json', 'tokenizer.json', 'model.safetensors'])
@pytest.mark.parametrize('content', [b'', b'{', b'null', b'1', b'"x"', b'[' * 100000,
                                     b'{"a":' * 5000, b'\xff\xfe\0', b'\xed\xa0\x80'])
def test_a_file_that_is_none_of_its_kind(copy_of, file, content):
    path = copy_of()
    (path / file).write_bytes(content)
    assert str(path) in outcome(path)


@pytest.mark.parametrize('index', [
    None, [], {}, {'weight_map': []}, {'weight_map': {'a': 1}}, {'weight_map': {}},
    {'weight_map': {'a': 'gone.safetensors'}}, {'weight_map': {'a': '../model.safetensors'}},
    {'weight_map': {'a': '/etc/passwd'}}, {'weight_map': {'a': 'pytorch_model.bin'}}])
def test_an_index_that_names_no_safetensors_beside_it(copy_of, index):
    path = copy_of()
    (path / 'pytorch_model.bin').write_bytes(b'cos\nsystem\n')
    (path / 'model.safetensors.index.json').write_text(json.dumps(index))
    assert str(path) in outcome(path)


def test_a_link_instead_of_weights_or_a_directory_is_refused(copy_of):
    path = copy_of()
    (path / 'model.safetensors').unlink()
    (path / 'model.safetensors').mkdir()
    assert str(path) in outcome(path)
    (path / 'model.safetensors').rmdir()
    (path / 'model.safetensors').symlink_to('/dev/zero')
    assert str(path) in outcome(path)


def damaged_json(value, dice):
    """Change or remove one value somewhere in `value`."""
    places, stack = [], [value]
    while stack:
        inner = stack.pop()
        keys = inner if isinstance(inner, dict) else range(min(len(inner), 50))
        places += [(inner, key) for key in keys]
        stack += [inner[key] for key in keys if isinstance(inner[key], (dict, list))]
    holder, key = dice.choice(places)
    new = dice.choice([None, 0, -1, 2 ** 40, 2 ** 63, 1.5, 'x', [], {}, [1], True, ...])
    if new is ...:
        del holder[key]
    else:
        holder[key] = new


@pytest.mark.parametrize('seed', range(40))
def test_any_damage_is_a_sentence_or_harmless(copy_of, seed):
    dice = random.Random(seed)
    path = copy_of('gpt2' if seed % 8 == 0 else 'llama')
    file = path / ('model.safetensors', 'tokenizer.json', 'tokenizer_config.json',
                   'config.json')[seed % 4]
    content = bytearray(file.read_bytes())
    start = 0
    if file.suffix == '.safetensors':
        start, size = 8, int.from_bytes(content[:8], 'little')
    else:
        size = len(content)
    if dice.random() < 0.6:
        header = json.loads(content[start:start + size])
        damaged_json(header, dice)
        header = json.dumps(header).encode()
        content[:start + size] = len(header).to_bytes(8, 'little')[:start] + header
    elif dice.random() < 0.5:
        del content[dice.randrange(len(content)):]
    else:
        content[dice.randrange(min(len(content), start + size))] = dice.randrange(256)
    file.write_bytes(content)
    sentence = outcome(path)
    assert not sentence or str(path) in sentence


@pytest.fixture
def gguf_of(tmp_path, monkeypatch):
    """Return a function that makes a GGUF file whose header says other things than it should."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(gguf_file.GgufFile, 'tokenizer', lambda self: tiny.tokenizer())
    config = tiny.llama()
    gguf_files.write(tmp_path / 'model.gguf', 'llama', config, tiny.model(config).state_dict())
    read = gguf_file.read_header

    def make(**changes):
        def changed(path):
            metadata, tensors = read(path)
            return metadata | {f'llama.{k}': v for k, v in changes.items()}, tensors
        monkeypatch.setattr(gguf_file, 'read_header', changed)
        return tmp_path / 'model.gguf'
    return make


@pytest.mark.parametrize('name, value', [
    ('attention.head_count', 0), ('attention.head_count', -4), ('attention.head_count', 'x'),
    ('attention.head_count', HUGE), ('attention.head_count', 3), ('attention.head_count_kv', 3),
    ('attention.head_count_kv', HUGE), ('embedding_length', 0), ('embedding_length', HUGE),
    ('embedding_length', ''), ('block_count', 0), ('block_count', HUGE), ('block_count', 2 ** 64),
    ('block_count', 2.5), ('feed_forward_length', -1), ('feed_forward_length', HUGE),
    ('context_length', 0), ('context_length', 'long'),
    ('attention.layer_norm_rms_epsilon', float('nan')), ('rope.freq_base', float('inf')),
    ('rope.freq_base', -1.0), ('attention.key_length', 7), ('attention.key_length', HUGE),
    ('rope.scaling.type', 'no_such'), ('attention.sliding_window', -1)])
def test_a_gguf_header_of_nonsense_is_refused(gguf_of, name, value):
    assert outcome(gguf_of(**{name: value}))


def test_the_gguf_file_itself_loads(gguf_of):
    assert outcome(gguf_of()) == ''
