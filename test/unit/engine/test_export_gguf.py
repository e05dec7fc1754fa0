# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files as directories, for vLLM: what transformers reads there is what the file holds."""

import json

import pytest
from slice_ros.engine import export_gguf as export
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.errors import ModelError
import test_gguf_families as families
import torch

# Dense, and not known to be whole in a directory.
UNKNOWN = {'mistral3', 'hunyuan-dense', 'command-r', 'command-r norms', 'cohere2', 'nemotron'}
REFUSED = {'qwen3moe', 'qwen2moe', 'olmoe', 'granitemoe', 'llama mixtral', 'gpt-oss', 'lfm2',
           'falcon-h1', 'falcon-h1 norm', 'granitehybrid', 'granitehybrid experts', 'nemotron_h',
           'nemotron_h_moe', 'qwen35', 'qwen35 guesses', 'qwen35moe'}


@pytest.mark.parametrize('name', sorted(set(families.FILES) - REFUSED - UNKNOWN))
def test_answers_are_those_of_the_model(name, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM
    monkeypatch.setattr(export, 'PART_BYTES', 50_000)
    model = families.write(tmp_path / 'model.gguf', name)
    export.export_gguf(str(tmp_path / 'model.gguf'), tmp_path / 'made')
    assert len(list((tmp_path / 'made').glob('*.safetensors'))) > 1
    made, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / 'made', dtype=torch.float32, output_loading_info=True)
    assert not report['missing_keys'] and not report['unexpected_keys']
    prompt = list(range(7, 40))
    assert families.greedy(made, prompt, 12) == families.greedy(model, prompt, 12)


@pytest.mark.parametrize('name', sorted(REFUSED | UNKNOWN))
def test_experts_recurrent_layers_and_unknown_ones_are_refused(name, tmp_path):
    families.write(tmp_path / 'model.gguf', name)
    with pytest.raises(ModelError, match='cannot be exported'):
        export.export_gguf(str(tmp_path / 'model.gguf'), tmp_path / 'made')
    assert not (tmp_path / 'made').exists()


def test_the_embedded_model_is_exported_exactly(tmp_path):
    from safetensors import safe_open
    from transformers import AutoTokenizer
    assert export.main([str(tmp_path / 'made')]) == 0
    source = GgufFile(find_model(''))
    tensors, seen = GgufTensors(source, 'float32'), set()
    for file in (tmp_path / 'made').glob('*.safetensors'):
        with safe_open(file, 'pt') as part:
            for name in part.keys():
                seen.add(name)
                wanted = torch.from_numpy(tensors.floats(name)).float()
                assert torch.equal(part.get_tensor(name), wanted)
    assert seen == set(tensors.names())
    text = 'Drive to dock 3, please.\n<|im_end|>'
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / 'made')
    assert tokenizer.encode(text) == source.tokenizer().backend_tokenizer.encode(text).ids


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch, capsys):
    assert export.main([str(tmp_path)]) == 2   # it is there
    assert 'is there already' in capsys.readouterr().err
    monkeypatch.setattr(export, 'SPARE_BYTES', 1 << 60)
    assert export.main([str(tmp_path / 'made')]) == 2
    assert 'no room' in capsys.readouterr().err
    assert export.main([str(tmp_path / 'made'), '--model', str(tmp_path)]) == 2
    assert 'is a model directory' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*given):
        raise OSError('the disk is full')
    monkeypatch.setattr(export, '_write_weights', fail)
    assert export.main([str(tmp_path / 'made')]) == 2
    assert list(tmp_path.iterdir()) == []


def test_floats_of_16_bits_are_half_as_large(tmp_path):
    families.write(tmp_path / 'model.gguf', 'qwen2')
    sizes = [export.export_gguf(str(tmp_path / 'model.gguf'), tmp_path / dtype, dtype)
             for dtype in export.DTYPES]
    assert sizes[0] == 2 * sizes[1] == 2 * sizes[2]
    config = json.loads((tmp_path / 'bfloat16' / 'config.json').read_text())
    assert config['dtype'] == 'bfloat16'
