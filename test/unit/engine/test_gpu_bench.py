# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench gpu`` without a GPU: sentences, order, what is left of a part, the table."""

from argparse import ArgumentParser
from contextlib import contextmanager
from dataclasses import replace
import json
import re
import subprocess

import pytest
from slice_ros.bench.cli import main
from slice_ros.bench.engine import engine_bench
from slice_ros.bench.gpu import gpu_bench, gpu_checks, gpu_forward, gpu_parts
from slice_ros.bench.gpu.gpu_checks import Machine, missing
from slice_ros.bench.gpu.gpu_parts import count_tests, CUT, DONE, FAILED, NOT_RUN, Outcome, Part
from slice_ros.bench.gpu.gpu_table import table

WHOLE = Machine('NVIDIA Fake', '8.9', 15.6, '550.54', '2.13.0', '12.8', '', '3.7.1',
                '/usr/bin/gcc', '/usr/include/python3.11/Python.h', True)
NO_GPU = replace(WHOLE, gpu=None, capability=None, memory_gib=None)
TOO_OLD = 'The NVIDIA driver on your system is too old (found version 11040)'


def test_a_machine_that_has_all_misses_nothing():
    assert missing(WHOLE) == []


@pytest.mark.parametrize('machine, words', [
    (replace(NO_GPU, driver=None), 'no GPU was found.*install the NVIDIA driver'),
    (replace(NO_GPU, refusal=TOO_OLD), 'driver 550.54 is too old.*CUDA 12.8.*newer driver.*11040'),
    (replace(NO_GPU, refusal='No CUDA GPUs are available'), 'is there, but.*No CUDA GPUs.*--gpus'),
    (replace(NO_GPU, cuda=None), 'torch 2.13.0 is not built for CUDA: install a CUDA build'),
    (replace(WHOLE, triton=None), 'Triton is not installed: pip install triton'),
    (replace(WHOLE, compiler=None), 'no C compiler.*sudo apt install gcc'),
    (replace(WHOLE, has_headers=False), r'Python.h.*sudo apt install python3\.\d+-dev'),
], ids=('no GPU', 'old driver', 'hidden GPU', 'torch for CPUs', 'Triton', 'compiler', 'headers'))
def test_what_is_missing_is_one_sentence_with_what_to_install(machine, words):
    sentence, = missing(machine)
    assert re.search(words, sentence)


def test_without_a_gpu_the_run_ends_at_once(monkeypatch, capsys):
    monkeypatch.setattr(gpu_bench, 'find_machine', lambda: replace(NO_GPU, driver=None, cuda=None))
    assert main(['gpu']) == 1
    assert [line[:30] for line in capsys.readouterr().err.splitlines()] == [
        'slice_bench gpu: no GPU was fo', 'slice_bench gpu: torch 2.13.0 ']


def test_an_old_driver_differs_from_none(monkeypatch, tmp_path):
    """Fake probes: torch finds no device, nvidia-smi answers, or fails, or is not there."""
    monkeypatch.setattr(gpu_checks.torch.cuda, 'is_available', lambda: False)

    def refuse():
        raise RuntimeError(TOO_OLD + '\nPlease update')
    monkeypatch.setattr(gpu_checks.torch.cuda, 'init', refuse)
    monkeypatch.setattr(gpu_checks, '_PROC', tmp_path / 'nvidia')
    monkeypatch.setattr(gpu_checks.shutil, 'which', lambda name: None)
    machine = gpu_checks.find_machine()
    assert (machine.gpu, machine.driver, machine.compiler) == (None, None, None)
    assert machine.refusal == TOO_OLD + ' Please update'
    monkeypatch.setattr(gpu_checks.shutil, 'which', lambda name: f'/usr/bin/{name}')
    answer = [0, '470.82.01\n']
    monkeypatch.setattr(gpu_checks.subprocess, 'run', lambda *given, **options: (
        subprocess.CompletedProcess(given, *answer)))
    assert gpu_checks.find_machine().driver == '470.82.01'
    answer[:] = 9, 'NVIDIA-SMI has failed'
    assert gpu_checks.find_machine().driver == 'of unknown version'
    (tmp_path / 'nvidia').mkdir()
    (tmp_path / 'nvidia' / 'version').write_text(
        'NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.199.02  Thu May 11 2023\n')
    assert gpu_checks.find_machine().driver == '470.199.02'


class Clock:
    """Stands for the time; parts let it pass."""

    now = 0.0

    def monotonic(self):
        return self.now


@contextmanager
def quiet(name, seconds):
    yield lambda passed: None


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(gpu_parts, 'time', clock)
    return clock


def fake_part(clock, name, limit, takes, log):
    def run(outcome, limit_s, advance):
        log.append((name, limit_s))
        clock.now += min(takes, limit_s)
        outcome.result = {'found': name}
        outcome.state, outcome.reason = (DONE, '') if takes <= limit_s else (CUT, 'slow')
    return Part(name, limit, run)


def test_parts_run_in_order_within_their_limits_and_are_saved_one_by_one(clock):
    log, outcomes, saved = [], {}, []
    parts = [fake_part(clock, 'a', 50, 20, log), fake_part(clock, 'b', 50, 90, log),
             fake_part(clock, 'c', 50, 40, log), fake_part(clock, 'd', 50, 1, log)]
    gpu_parts.run_parts(parts, outcomes, 105, lambda: saved.append(
        [o.state for o in outcomes.values()]), quiet)
    assert log == [('a', 50), ('b', 50), ('c', 35)]
    assert saved == [[NOT_RUN] * 4, [DONE, NOT_RUN, NOT_RUN, NOT_RUN],
                     [DONE, CUT, NOT_RUN, NOT_RUN], [DONE, CUT, CUT, NOT_RUN]]
    assert [(o.seconds, o.result.get('found')) for o in outcomes.values()] == [
        (20, 'a'), (50, 'b'), (35, 'c'), (0, None)]


def test_a_signal_keeps_what_was_found(clock):
    outcomes, saved = {}, []

    def interrupted(outcome, limit_s, advance):
        outcome.result = {'passed': 3}
        raise KeyboardInterrupt
    parts = [fake_part(clock, 'a', 50, 20, []), Part('b', 50, interrupted)]
    with pytest.raises(KeyboardInterrupt):
        gpu_parts.run_parts(parts, outcomes, 100, lambda: saved.append(
            [(o.state, o.reason, o.result) for o in outcomes.values()]), quiet)
    assert saved[-1] == [(DONE, '', {'found': 'a'}), (CUT, 'interrupted', {'passed': 3})]


@pytest.mark.parametrize('code, limit, state, reason', [
    ('print(7)', 60, DONE, ''),
    ('import sys; print(7); sys.exit("it is broken")', 60, FAILED, '7\nit is broken'),
    ('print(7); raise RuntimeError("CUDA error: bad" + 5 * "\\n" + "Search")', 60, FAILED,
     'RuntimeError: CUDA error: bad'),
    ('import time; print(7); time.sleep(60)', 5, CUT, 'not done in 5 s'),
], ids=('done', 'failed', 'CUDA', 'slow'))
def test_a_program_ends_as_its_outcome_says(code, limit, state, reason, tmp_path, monkeypatch):
    (tmp_path / 'program_of_a_part.py').write_text(code)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    outcome = Outcome()
    gpu_parts.run_program(outcome, limit, lambda passed: None, ['program_of_a_part'],
                          lambda log: {'printed': log.split()[:1]})
    assert (outcome.state, outcome.reason) == (state, reason)
    assert outcome.result == {'printed': ['7']}
    assert bool(outcome.log) == (state != DONE)


def test_failed_gpu_tests_are_named_and_others_counted(tmp_path):
    (tmp_path / 'pytest.ini').write_text('[pytest]\nmarkers = gpu: a\naddopts = -ra\n')
    (tmp_path / 'test_some.py').write_text(
        'import pytest\npytestmark = pytest.mark.gpu\n'
        '@pytest.mark.parametrize("n", ["a b", "c"])\ndef test_good(n): pass\n'
        'def test_bad(): assert 1 == 2\n'
        'def test_skipped(): pytest.skip("no")\n'
        'def test_error(nothing): pass\n')
    (tmp_path / 'test_other.py').write_text('import does_not_exist\n')
    outcome = Outcome()
    gpu_parts.run_tests(outcome, 60, lambda passed: None, str(tmp_path))
    assert outcome.state == FAILED and outcome.reason.startswith('3 tests: ')
    assert (outcome.result['passed'], outcome.result['skipped']) == (2, 1)
    failed = ' '.join(outcome.result['failed'])
    assert all(name in failed for name in ('::test_bad - assert 1 == 2', '::test_error',
                                           'test_other.py'))
    assert count_tests('a/test_b.py::test_c[x y] FAILED      [  5%]\na/test_b.py::test_d ')[
        'failed'] == ['a/test_b.py::test_c[x y]']  # cut short: without a summary


@pytest.mark.parametrize('kernels, warnings, state, reason', [
    ('torch linears, Triton attention, CUDA graphs', [], DONE, ''),
    ('torch linears, torch attention', ['not recorded (no Triton)'], FAILED,
     'the forward pass is torch linears, torch attention, not CUDA graphs: not recorded '
     '(no Triton)')])
def test_a_forward_pass_that_is_not_recorded_fails_with_the_reason(
        kernels, warnings, state, reason, tmp_path, monkeypatch):
    path = tmp_path / 'forward.json'
    path.write_text(json.dumps({'kernels': kernels, 'warnings': warnings}))

    def ended(outcome, *given):
        outcome.state, outcome.reason = DONE, ''
    monkeypatch.setattr(gpu_bench, 'run_program', ended)
    outcome = Outcome()
    gpu_bench.run_forward(outcome, 9, lambda passed: None, str(path))
    assert (outcome.state, outcome.reason) == (state, reason)


def test_the_forward_pass_of_a_model_is_described(tiny_directory):
    found = gpu_forward.forward('cpu', str(tiny_directory))
    assert found['device'] == 'cpu' and found['kernels'] and found['warnings'] == []
    assert gpu_forward.copy_bandwidth('cpu', 1 << 22) > 1e8


def test_every_measure_is_one_that_the_engine_benchmark_takes(tmp_path):
    parser = ArgumentParser()
    engine_bench.add_arguments(parser)
    names = {measure.name for measure in gpu_bench.MEASURES}
    assert len(names) == len(gpu_bench.MEASURES)
    for measure in gpu_bench.MEASURES:
        program, command, *rest = measure.arguments('x.json')
        args = parser.parse_args(rest)
        assert (program, command, args.device) == ('slice_ros.bench', 'engine', 'cuda')
        assert max(args.batches) <= 16 and args.rounds > 1
    parts = list(gpu_bench.make_parts(str(tmp_path)))
    assert [part.name for part in parts[:2]] == ['forward', 'tests']


@pytest.fixture
def run_of_the_engine(tiny_directory, tmp_path):
    """Return the JSON of the engine benchmark, as a part has it."""
    out = tmp_path / 'engine.json'
    assert main(['engine', '--model', str(tiny_directory), '--weights', 'fp32', '--batches', '1,2',
                 '--contexts', '8,16', '--prefill', '8', '--rounds', '2', '--json', str(out)]) == 0
    return json.loads(out.read_text())


def test_the_table_has_all_that_was_found_and_says_what_was_not(run_of_the_engine):
    run = run_of_the_engine | {'model': 'llama-3.2-1b, random weights', 'read_gb_per_s': 100.0}
    run['decode'][0] |= {'ms': 3.0, 'floor_ms': 2.0}
    peer = {'package': 'transformers 5', 'how': 'compiled'}
    beside = run | {'peers': [peer], 'mixed': [], 'prefill': [], 'decode': [
        run['decode'][0] | {'peer_ms': 6.0}]}
    machine = {name: getattr(WHOLE, name) for name in Machine.__slots__}
    parts = {
        'forward': {'state': DONE, 'reason': '', 'result': {
            'kernels': 'CUDA graphs', 'copy_gb_per_s': 200.0}},
        'tests': {'state': FAILED, 'reason': '1 tests: a\n' + 'b ' * 60, 'result': {
            'passed': 40, 'skipped': 0, 'failed': ['a']}},
        '1b': {'state': DONE, 'reason': '', 'result': run},
        'peer': {'state': DONE, 'reason': '', 'result': beside},
        '8b': {'state': CUT, 'reason': 'not done in 75 s', 'result': {}}}
    text = table({'machine': machine, 'parts': parts})
    assert text.startswith('### NVIDIA Fake\n')
    for words in ('Compute capability 8.9, 16 GiB, driver 550.54, torch 2.13.0 for CUDA 12.8, '
                  'Triton 3.7.1. ', ' GPU tests: 40 passed, 1 failed, 0 skipped.',
                  '| decode | weights | cached | batch 1 | batch 2 |',
                  '| llama-3.2-1b | fp32 | batch 1, 8 cached | 3.00 | 6.00 | 2.00 |',
                  'The peer: transformers 5, compiled.', '- tests: failed (1 tests: a b b b ',
                  '- 8b: cut short (not done in 75 s)',
                  '| llama-3.2-1b | fp32 | 8 | 3.00 (3.0) |'):  # at 200 GB/s the floor is 1 ms
        assert words in text.replace('\n', ' '), words
    assert max(len(line) for line in text.splitlines() if line[:1] != '|') <= 110


def test_a_table_of_nothing_but_a_machine():
    machine = {name: getattr(WHOLE, name) for name in Machine.__slots__}
    text = table({'machine': machine, 'parts': {'forward': {
        'state': NOT_RUN, 'reason': 'no time was left', 'result': {}}}})
    assert '| ' not in text and '- forward: not run (no time was left)' in text
