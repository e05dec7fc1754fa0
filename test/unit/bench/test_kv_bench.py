# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench kv`` measures 8 bits beside 16: steps, memory, perplexity."""

import json

import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.engine.tiny_model import write_tiny
from slice_ros.engine.runners.native import load_library


@pytest.mark.skipif(load_library()[0] is None, reason='the native kernels are not built')
def test_the_table_has_every_step(tmp_path, capsys):
    model, found = write_tiny(tmp_path), tmp_path / 'found.json'
    assert main(['kv', '--model', str(model), '--rounds', '2', '--batches', '1,3', '--contexts',
                 '16,64', '--prefill', '8', '--threads', '1', '--json', str(found)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(found.read_text())
    assert [(row['step'], row['size'], row['context']) for row in result['steps']] == [
        (kind, size, context) for context in (16, 64)
        for kind, size in (('decode', 1), ('decode', 3), ('prefill', 8))]
    assert all(row['ms'] > 0 and row['ms_8'] > 0 for row in result['steps'])
    before, after = result['token_bytes']
    assert 1.7 < before / after < 1.9 and f'{before / after:.2f} times as many' in printed
    (one, _), (other, _) = result['perplexity']
    assert one != other and one == pytest.approx(other, rel=0.02)


def test_what_does_not_fit_is_refused(tmp_path, capsys):
    model = write_tiny(tmp_path)
    assert main(['kv', '--model', str(model), '--rounds', '0']) == 2
    assert '--rounds' in capsys.readouterr().err
