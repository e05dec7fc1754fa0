# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file is converted once; a damaged entry of the cache is converted again."""

import pytest
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.checkpoints import model_cache, tensor_files
import tiny


class FakeGguf:
    """Stands for a small GGUF file with a tokenizer."""

    conversions = 0

    def __init__(self, path):
        type(self).conversions += 1

    def config(self):
        return tiny.llama().to_dict()

    def types(self):
        return {'model.embed_tokens.weight': 'F16'}

    def tensors(self, dtype):
        state = tiny.model(tiny.llama()).state_dict()
        return [tensor_files.Outgoing(name, dtype, tuple(values.shape), lambda v=values: [v])
                for name, values in state.items()]

    def tokenizer(self):
        return tiny.tokenizer()


@pytest.fixture
def converting(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(model_cache, 'GgufFile', FakeGguf)
    FakeGguf.conversions = 0
    (tmp_path / 'model.gguf').write_bytes(b'any')

    def load():
        return load_engine(EngineConfig(str(tmp_path / 'model.gguf'), max_context=64, slots=1))
    return load, tmp_path / 'cache' / 'slice_ros' / 'models'


def test_a_model_is_converted_once(converting):
    load, cache = converting
    assert load().info.model == load().info.model == 'model'
    assert FakeGguf.conversions == 1
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize('name', ['tokenizer.json', 'model.safetensors', 'slice_ros.json'])
@pytest.mark.parametrize('damage', ['cut', 'gone', 'bit'])
def test_a_damaged_cache_is_made_anew(converting, name, damage):
    load, cache = converting
    load()
    file = next(cache.iterdir()) / name
    content = file.read_bytes()
    if damage == 'gone':
        file.unlink()
    else:
        half = len(content) // 2
        file.write_bytes(content[:half] if damage == 'cut'
                         else content[:half] + b'\x00\xff' + content[half + 2:])
    load()
    assert FakeGguf.conversions == 2
    assert file.read_bytes() == content
    load()
    assert FakeGguf.conversions == 2


def test_a_cache_that_cannot_be_written_only_costs_time(converting, tmp_path, caplog):
    load, _ = converting
    (tmp_path / 'cache').write_text('a file where the folder should be')
    load()
    assert 'every start converts it again' in caplog.text
