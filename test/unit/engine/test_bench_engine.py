"""The engine benchmark: its figures are whole, in the agreed form; wrong options are refused."""

from argparse import ArgumentParser
import json
import sys

import pytest
from slice_ros.bench import engine as bench


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
            'peer_perplexity', 'overhead_share'} <= set(found)
    assert [(d['batch'], d['context']) for d in found['decode']] == [
        (1, 8), (3, 8), (1, 64), (3, 64)]
    assert [p['tokens'] for p in found['prefill']] == [16]
    for row in found['decode'] + found['prefill']:
        assert 0 < row['low_ms'] <= row['ms'] <= row['high_ms']
        assert row['peer_ms'] is row['ratio'] is None
    assert 0 < found['overhead_share'] < 1
    assert found['perplexity'] > 1 and found['peer_perplexity'] is None
    assert (tmp_path / 'engine.png').stat().st_size > 1000
    assert 'batch 3' in capsys.readouterr().out


@pytest.mark.parametrize('options', [['--batches', '0'], ['--contexts', 'x'], ['--prefill', '']])
def test_lists_that_are_none_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        args(*options)
    assert 'whole numbers' in capsys.readouterr().err


def test_a_context_beyond_the_model_is_refused(tiny_directory):
    with pytest.raises(ValueError, match='256'):
        bench.run(args('--model', str(tiny_directory), '--contexts', '300', '--rounds', '1'))


def test_a_peer_that_is_not_installed_is_named(tiny_directory, monkeypatch):
    monkeypatch.setitem(sys.modules, 'llama_cpp', None)
    with pytest.raises(ValueError, match='llama-cpp-python'):
        bench.run(args('--model', str(tiny_directory), '--batches', '1', '--contexts', '8',
                       '--prefill', '16', '--rounds', '1', '--peer', 'llama.cpp'))
