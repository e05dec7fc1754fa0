# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Perplexity by file type: files of the same function off the grid, and a verdict a row."""

from argparse import ArgumentParser
import json
import shutil

from gguf import GGUFReader
import gguf_files
import numpy as np
import pytest
from slice_ros.bench.quantised import perplexity_bench as bench, quantiser
from slice_ros.bench.quantised.disturbed import write_disturbed
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.regroup import GgufDecoder
from slice_ros.engine.runners.runner import Segment
import tiny
import torch


@pytest.fixture(autouse=True)
def tokenizer(monkeypatch):
    monkeypatch.setattr(GgufFile, 'tokenizer', lambda self: tiny.tokenizer())


def written(path, types=(), **changes):
    config = tiny.llama(**changes)
    gguf_files.write(path, 'llama', config, tiny.model(config).state_dict(), types=types)
    return path


def logits(path):
    engine = load_engine(EngineConfig(str(path), weights='fp32', max_context=64, slots=1))
    engine._slots.reserve([(0, 20)])
    return torch.as_tensor(engine._runner.forward([Segment(0, 0, range(20), True)])).clone()


@pytest.mark.parametrize('tied', [True, False])
def test_a_widened_model_computes_the_same(tmp_path, tied):
    # Channels are there three times or twice, heads eight times.
    source = written(tmp_path / 'narrow.gguf', hidden_size=96, tie_word_embeddings=tied)
    write_disturbed(source, tmp_path / 'wide.gguf', widen=True)  # floats have no steps
    wide = GGUFReader(tmp_path / 'wide.gguf').tensors
    assert all(tensor.shape[0] % 256 == 0 for tensor in wide)  # gguf names inputs first
    want = logits(source)
    assert (logits(tmp_path / 'wide.gguf') - want).abs().max() < 0.01 * want.abs().max()


def test_weights_are_disturbed_by_half_a_step_at_most_and_norms_are_not(tmp_path):
    source = written(tmp_path / 'codes.gguf', types=[('_proj', 'Q4_0'), ('', 'Q8_0')])
    write_disturbed(source, tmp_path / 'plain.gguf', widen=False)
    found = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / 'plain.gguf').tensors}
    for tensor in GGUFReader(source).tensors:
        off = found[tensor.name].astype(np.float32)
        if tensor.tensor_type.name == 'F32':
            assert (off == tensor.data).all()
            continue
        codes = GgufDecoder().codes(tensor.data, tensor.tensor_type.name)
        parts = (off - codes.floats()).reshape(*codes.scales.shape, 32) / codes.scales[..., None]
        # Uniform, which spreads by 0.289; float16 rounds by a fraction of a step of Q8_0.
        assert np.abs(parts).max() < 0.6 and 0.27 < parts.std() < 0.31


class FakePeer:
    """Stands for llama.cpp, which predicts better than random weights."""

    def __init__(self, *options):
        pass

    def perplexity(self, tokens):
        return 300.0

    def close(self):
        pass


def test_a_row_beyond_the_peer_and_a_refusal_are_shown(tmp_path, monkeypatch, capsys):
    def quantise(source, path, name, threads):
        if name == 'IQ1_S':
            raise ValueError('llama.cpp does not write IQ1_S: it wants an importance matrix')
        shutil.copy(source, path)
    monkeypatch.setattr(bench, 'quantise', quantise)
    monkeypatch.setattr(bench, 'Peer', FakePeer)
    source = written(tmp_path / 'tiny.gguf', types=[('', 'Q8_0')])

    def run(most):
        monkeypatch.setattr(bench, 'MOST', most)
        parser = ArgumentParser()
        bench.add_arguments(parser)
        return bench.run(parser.parse_args([
            '--model', str(source), '--types', 'F16,Q4_0,IQ1_S', '--json',
            str(tmp_path / 'out' / 'rows.json')]))
    assert run(1.01) == 1 and run(3.0) == 0
    rows = json.loads((tmp_path / 'out' / 'rows.json').read_text())
    assert [row['type'] for row in rows] == ['F16', 'Q4_0', 'IQ1_S']
    for row in rows[:2]:
        assert row['bits'] == 16 and row['ratio'] == row['perplexity']['auto'] / 300 > 1.01
    assert 'importance matrix' in rows[2]['refused']
    text = ' '.join(capsys.readouterr().out.split())
    assert 'IQ1_S: llama.cpp does not write' in text and '300.000' in text


def test_a_quantiser_that_is_not_installed_is_named(tmp_path, monkeypatch):
    (tmp_path / 'cyllama.py').write_text("raise ImportError('there is none')")
    monkeypatch.syspath_prepend(tmp_path)  # a process of its own has it from here
    with pytest.raises(ValueError, match='package cyllama'):
        quantiser.quantise(tmp_path / 'a.gguf', tmp_path / 'b.gguf', 'Q4_0', 1)


@pytest.mark.parametrize('option, value', [('--types', 'Q4_7'), ('--isa', 'sse')])
def test_names_that_are_none_are_refused(option, value, capsys):
    parser = ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([option, value])
    assert f"'{value}' is none of" in capsys.readouterr().err
