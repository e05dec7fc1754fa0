# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The roofline: what a prefill multiplies, the shares of limits, and the command as a whole."""

from argparse import ArgumentParser
import json

import pytest
from slice_ros.bench.engine import engine_bench, engine_measure, roofline as module
from slice_ros.engine import EngineConfig, load_engine
from slice_ros.engine.models.architecture import Architecture, Layer, Rope
from slice_ros.engine.runners import choose


def args(*options):
    parser = ArgumentParser()
    engine_bench.add_arguments(parser)
    return parser.parse_args(options)


@pytest.fixture
def small_reads(monkeypatch):
    """Read little memory: here the figures need not be right."""
    monkeypatch.setitem(engine_measure.READ_BYTES, 'cpu', 1 << 22)


def test_products_of_a_prefill():
    made = Architecture(
        hidden=4, heads=2, kv_heads=1, head_dim=2, intermediate=6, vocabulary=10, norm_eps=1e-5,
        layers=(Layer(),) * 2, ropes=(Rope((1.0,)),), norms={}, attention_scale=1.0, tied=True)
    qkv, out, mlp, head = 4 * (4 + 2 + 2), 4 * 4, 3 * 4 * 6, 10 * 4
    # Three tokens in the first layer, in the last the third alone behind its attention.
    weights = 3 * (qkv + out + mlp) + 3 * qkv + (out + mlp) + head
    # Tokens meet 1, 2 and 3 keys and as many values of 2 heads of 2, in 2 layers.
    attention = 2 * 2 * (1 + 2 + 3) * 2 * 2
    assert module.prefill_products(made, 3) == (weights, attention)


def test_a_share_is_the_least_time_by_the_time_taken():
    assert module.share(27.6e9, 0.06, 0.15) == pytest.approx(
        {'work': 27.6, 'least_ms': 60.0, 'ms': 150.0, 'share': 0.4})


class Timed:
    """In place of `Probe`: known times. Of two decode steps the first does not count."""

    def __init__(self, engine, slots):
        self._decodes = iter([0.001, 0.5, 0.001, 0.2, 0.001, 0.4])
        self._prefills = iter([4.0, 2.0, 3.0])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def decode(self, batch, context):
        assert (batch, context) == (1, 8)
        return next(self._decodes)

    def prefill(self, tokens):
        assert tokens == 16
        return next(self._prefills)


def test_the_best_of_the_rounds_counts(tiny_directory, small_reads, monkeypatch):
    engine = load_engine(EngineConfig(str(tiny_directory), weights='int8', slots=1, max_batch=1))
    limits = iter([{'read': 1e6, 'int8': 3e9, 'fp32': 1e9},
                   {'read': 4e6, 'int8': 2e9, 'fp32': 5e8},
                   {'read': 2e6, 'int8': 1e9, 'fp32': 2e9}])
    monkeypatch.setattr(module, '_limits', lambda *_: next(limits))
    monkeypatch.setattr(module, 'Probe', Timed)
    shares = []
    found = module.roofline({'int8': engine}, 'auto', 3, 8, 16, shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    assert found['read_gb_per_s'] == 0.004
    assert found['peak_gmac_per_s'] == {'fp32': 2.0, 'int8': 3.0}
    decode, prefill = found['rows']
    cached = 8 * engine.info.kv_bytes / engine.info.kv_tokens
    nbytes = engine._runner.info.streamed_bytes + cached
    assert decode['work'] == pytest.approx(nbytes / 1e9) and decode['ms'] == 200.0
    assert decode['least_ms'] == pytest.approx(nbytes / 4e3)
    assert decode['share'] == pytest.approx(nbytes / 4e6 / 0.2)
    weights, attention = module.prefill_products(engine._runner._model.made, 16)
    least_s = weights / 3e9 + attention / 2e9
    assert prefill['work'] == pytest.approx((weights + attention) / 1e9)
    assert prefill['share'] == pytest.approx(least_s / 2.0)


def test_the_command_prints_the_roofline(tiny_directory, small_reads, tmp_path, capsys):
    out = tmp_path / 'engine.json'
    assert engine_bench.run(args(
        '--model', str(tiny_directory), '--batches', '1', '--contexts', '8', '--prefill', '16',
        '--rounds', '1', '--roofline', 'int4', 'fp32', '--isa', 'portable',
        '--json', str(out))) == 0
    found = json.loads(out.read_text())['roofline']
    assert found['kernels'] in ('portable', 'NEON') and found['threads'] > 0
    assert set(found['peak_gmac_per_s']) == {'int4', 'fp32'}
    assert min(found['read_gb_per_s'], *found['peak_gmac_per_s'].values()) > 0
    assert [(row['weights'], row['step'], row['unit']) for row in found['rows']] == [
        (weights, *step) for weights in ('int4', 'fp32')
        for step in (('decode 1', 'GB'), ('prefill 16', 'GMAC'))]
    assert all(row['share'] == pytest.approx(row['least_ms'] / row['ms']) for row in found['rows'])
    text = capsys.readouterr().out
    assert 'roofline of' in text and max(map(len, text.splitlines())) <= 80


def test_steps_on_other_kernels_have_no_roofline(tiny_directory, monkeypatch):
    monkeypatch.setattr(choose, 'load_library', lambda: (None, 'none'))
    with pytest.raises(ValueError, match='native kernels'):
        engine_bench.run(args('--model', str(tiny_directory), '--contexts', '8', '--prefill', '16',
                              '--rounds', '1', '--roofline'))
