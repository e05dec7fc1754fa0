# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The engine benchmark: its figures are whole, in the agreed form; wrong options are refused."""

from argparse import ArgumentParser
import json
import math
import os
from pathlib import Path
import time

import pytest
from slice_ros.bench.engine import engine_bench as bench, shapes
from slice_ros.bench.engine.accuracy import (
    engine_perplexity, first_divergence, greedy_texts, LENGTH)
from slice_ros.bench.engine.peer_process import Peer
from slice_ros.bench.engine.transformers_peer import Transformers
from slice_ros.engine import EngineConfig, load_engine
import tiny
import torch
from transformers import AutoConfig


def args(*options):
    parser = ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(options)


def test_the_json_has_every_agreed_field(tiny_directory, tmp_path, capsys):
    out = tmp_path / 'new' / 'engine.json'
    assert bench.run(args('--model', str(tiny_directory), '--batches', '1,3', '--contexts', '8,64',
                          '--prefill', '16', '--rounds', '2', '--json', str(out),
                          '--plot', str(tmp_path / 'engine.png'))) == 0
    found = json.loads(out.read_text())
    assert {'model', 'weights', 'device', 'threads', 'floor_ms', 'decode', 'prefill', 'perplexity',
            'peer_perplexity', 'overhead_share', 'first_divergence', 'peak_mb'} <= set(found)
    assert [(d['batch'], d['context']) for d in found['decode']] == [
        (1, 8), (3, 8), (1, 64), (3, 64)]
    assert [p['tokens'] for p in found['prefill']] == [16]
    for row in found['decode'] + found['prefill']:
        assert 0 < row['low_ms'] <= row['ms'] <= row['high_ms']
        assert row['peer_ms'] is row['ratio'] is None
    assert [(m['batch'], m['context'], m['tokens']) for m in found['mixed']] == [
        (1, 8, 16), (3, 8, 16)]
    for row, decode in zip(found['mixed'], found['decode']):
        assert row['separate_ms'] == pytest.approx(decode['ms'] + found['prefill'][0]['ms'])
        assert row['ratio'] == pytest.approx(row['ms'] / row['separate_ms'])
    assert 0 < found['overhead_share'] < 1
    assert found['overhead_share'] >= found['plan_share'] > 0
    assert 0 <= found['first_divergence'] <= found['divergence_length']
    assert found['peak_mb'] >= found['resident_mb'] > 0
    assert found['perplexity'] > 1 and found['peer_perplexity'] is None
    assert (tmp_path / 'engine.png').stat().st_size > 1000
    out = capsys.readouterr().out
    assert 'batch 3' in out and 'in one step' in out


def test_times_alone_leave_out_what_takes_minutes(tiny_directory, tmp_path, capsys):
    out = tmp_path / 'engine.json'
    assert bench.run(args('--model', str(tiny_directory), '--batches', '2', '--contexts', '8',
                          '--prefill', '16', '--rounds', '1', '--times-only', '--json',
                          str(out))) == 0
    found = json.loads(out.read_text())
    assert found['decode'][0]['ms'] > 0 and found['prefill'][0]['ms'] > 0
    assert found['mixed'] == [] and found['overhead_share'] is found['perplexity'] is None
    text = capsys.readouterr().out
    assert 'batch 2' in text and 'in one step' not in text and 'outside the model' not in text


def test_starts_take_hardly_any_disk(tiny_directory, capsys):
    assert bench.run(args('--starts')) == 0
    out = ' '.join(capsys.readouterr().out.split())
    assert 'the cache takes 0.0' in out and 'first start: ' in out and 'later start: ' in out
    with pytest.raises(ValueError, match='.gguf file'):
        bench.run(args('--starts', '--model', str(tiny_directory)))


@pytest.mark.parametrize('options', [['--batches', '0'], ['--contexts', 'x'], ['--prefill', '']])
def test_lists_that_are_none_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        args(*options)
    assert 'whole numbers' in capsys.readouterr().err


def test_a_context_beyond_the_model_is_refused(tiny_directory):
    with pytest.raises(ValueError, match='256'):
        bench.run(args('--model', str(tiny_directory), '--contexts', '300', '--rounds', '1'))


@pytest.mark.parametrize('peer, module, package', [
    ('llama.cpp', 'llama_cpp', 'llama-cpp-python'), ('cyllama', 'cyllama', 'package cyllama')])
def test_a_peer_that_is_not_installed_is_named(peer, module, package, tiny_directory, tmp_path,
                                               monkeypatch):
    (tmp_path / f'{module}.py').write_text("raise ImportError('there is none')")
    monkeypatch.syspath_prepend(tmp_path)  # a process of its own has it from here
    with pytest.raises(ValueError, match=package):
        bench.run(args('--model', str(tiny_directory), '--batches', '1', '--contexts', '8',
                       '--prefill', '16', '--rounds', '1', '--peer', peer,
                       '--peer-model', 'any.gguf'))


def test_a_shape_needs_no_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(shapes.SHAPES, 'tiny', shapes.SHAPES['qwen2.5-0.5b'] | {
        'hidden_size': 64, 'intermediate_size': 96, 'num_hidden_layers': 2,
        'num_attention_heads': 4})
    out = tmp_path / 'shape.json'
    assert bench.run(args('--shape', 'tiny', '--batches', '16', '--contexts', '512', '--prefill',
                          '16', '--rounds', '1', '--json', str(out))) == 0
    found = json.loads(out.read_text())
    assert found['model'] == 'tiny, random weights'
    assert found['perplexity'] is None and found['decode'][0]['ms'] > 0
    text = capsys.readouterr().out
    assert 'batch 16' in text and max(map(len, text.splitlines())) <= 80
    with pytest.raises(ValueError, match='--model'):
        bench.run(args('--shape', 'tiny', '--model', 'other'))


def test_tensors_of_a_shape_are_the_same_for_whoever_asks():
    config = tiny.qwen2()
    made, again = (shapes.RandomTensors(config, torch.device('cpu')) for _ in range(2))
    real = tiny.model(config).state_dict()
    assert set(real) - {'lm_head.weight'} == {name for name in real if name in made}
    for name in set(real) - {'lm_head.weight'}:
        assert made[name].shape == real[name].shape
        assert torch.equal(made[name], again[name])
    layers = [made[f'model.layers.{i}.mlp.up_proj.weight'] for i in range(2)]
    assert not torch.equal(*layers) and .015 < float(layers[0].float().std()) < .025


@pytest.fixture(scope='module')
def transformers_peer(tiny_directory):
    return Transformers(str(tiny_directory), False, 'fp32', 'cpu', 2, 128)


def test_transformers_runs_the_same_weights(transformers_peer, tiny_directory):
    engine = load_engine(EngineConfig(str(tiny_directory), 'cpu', 'fp32', max_context=128))
    prompts = [engine.encode('the robot'), engine.encode('turn left, then')]
    for prompt, text in zip(prompts, greedy_texts(engine, prompts)):
        assert len(text) > 5  # up to a stop token, which means nothing to the peer
        assert transformers_peer.greedy(prompt, len(text)) == text
    text = engine.encode('it drives from the kitchen to the hall')
    assert transformers_peer.perplexity(text) == pytest.approx(
        engine_perplexity(engine, text), rel=1e-3)


def test_transformers_times_steps_of_every_size(transformers_peer):
    for batch in (1, 3, 1):
        assert transformers_peer.decode(batch, 100) > 0
    assert transformers_peer.prefill(32) > 0 and transformers_peer.prefill(8, 64) > 0


@pytest.mark.gpu
def test_the_benchmark_runs_on_a_gpu_beside_compiled_transformers(tmp_path):
    out = tmp_path / 'gpu.json'
    assert bench.run(args('--shape', 'smollm2-135m', '--device', 'cuda', '--batches', '1,4',
                          '--contexts', '64', '--prefill', '16', '--rounds', '2', '--peer',
                          'transformers', '--json', str(out))) == 0
    found = json.loads(out.read_text())
    assert 'CUDA graphs' in found['kernels']
    assert [peer['compiled'] for peer in found['peers']] == [True]
    for row in found['decode']:
        assert row['floor_ms'] < row['ms'] and row['ratio'] > 0


class FakePeer:
    """Stands for llama.cpp in the child process: reports when it ran."""

    settings = {'name': 'fake'}

    def __init__(self, *options):
        self.options = options

    def decode(self, batch, context):
        return [batch, context, time.monotonic(), os.environ['OMP_WAIT_POLICY']]

    def prefill(self, tokens, context):
        raise ValueError(f'{tokens} are too many')

    def greedy(self, prompt, count):
        os._exit(1)


@pytest.fixture
def peer(monkeypatch):
    made = Peer('fake', FakePeer, 'path', 1)
    yield made
    made.close()
    made.close()


def test_a_peer_answers_from_a_process_that_stands_still_in_between(peer):
    state = Path(f'/proc/{peer._process.pid}/stat')
    assert peer.settings == {'name': 'fake'}
    for _ in range(3):
        until = time.monotonic() + 20
        while state.read_text().split()[2] != 'T':  # stopped
            assert time.monotonic() < until
        before = time.monotonic()
        batch, context, at, policy = peer.decode(3, 64)
        assert (batch, context, policy) == (3, 64, 'ACTIVE')
        assert before <= at <= time.monotonic()


def test_a_peer_that_refuses_says_why_and_goes_on_and_one_that_ends_is_noticed(peer):
    with pytest.raises(ValueError, match='300 are too many'):
        peer.prefill(300)
    assert peer.decode(1, 2)[:2] == [1, 2]
    with pytest.raises(ValueError, match='of fake has ended'):
        peer.greedy([1], 2)
    with pytest.raises(ValueError, match='has ended'):
        peer.decode(1, 2)


def test_texts_leave_the_exact_ones_at_their_first_other_token():
    exact = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
    assert first_divergence([[1, 2, 0, 4], [0, 6], [7, 8, 0]], exact) == 2
    assert first_divergence(exact, exact) == LENGTH


def test_a_shape_with_state_spaces_has_the_size_of_its_model():
    """As the card of the model and its file say."""
    config = AutoConfig.for_model(**shapes.SHAPES['granite-4.0-h-350m'])
    tensors = shapes.RandomTensors(config, torch.device('cpu'))
    assert sum(map(math.prod, tensors._sizes.values())) == 340_332_224
