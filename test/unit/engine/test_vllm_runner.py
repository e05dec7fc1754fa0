# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Steps that vLLM computes against those of the native runner; without vLLM, what is refused."""

import os
from pathlib import Path
import subprocess
import sys
import time

import pytest
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling
from slice_ros.engine.config import no_progress
from slice_ros.engine.profile import measure
from slice_ros.engine.runners import vllm_process, vllm_runner
from slice_ros.engine.runners.runner import Segment
from slice_ros.errors import ModelError
import tiny

PYTHON = os.environ.get('SLICE_TEST_VLLM', '')
SETTINGS = {'max_context': 200, 'slots': 6, 'threads': 1, 'memory_fraction': 0.05}


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    """Return a model whose heads are as large as vLLM wants them on CPUs."""
    path = tmp_path_factory.mktemp('tiny')
    # No more positions than a request may have.
    tiny.save(path, tiny.llama(head_dim=32, hidden_size=128, eos_token_id=None,
                               max_position_embeddings=SETTINGS['max_context']))
    return str(path)


@pytest.fixture(scope='module')
def engines(directory):
    """Return the engine on vLLM, and the native one, in fp32."""
    return [load_engine(EngineConfig(directory, weights='fp32', **SETTINGS, **more)) for more in (
        {'backend': 'vllm', 'vllm_python': PYTHON}, {})]


def served(engine):
    """Return the answers of requests that come, pause, share prefixes and leave; in few steps."""
    prompt = list(range(40, 140))
    first = engine.open(prompt, 30, Sampling())
    sampled = engine.open(prompt[:7], 25, Sampling(temperature=0.9, top_p=0.9, seed=4))
    chosen = engine.open(prompt[:20], 25, Sampling(), response_format=ResponseFormat(
        'choice', choices=('left', 'right')))
    later = [engine.open([*prompt[:n], 7, 8], 9, Sampling()) for n in (96, 75, 70)]
    everyone, steps = [first, sampled, chosen, *later], 0
    while not all(sequence.finish_reason for sequence in everyone):
        steps += 1
        ready = [s for s in everyone[:3] if not s.finish_reason and not (
            s is first and 6 < steps < 20)]   # a pause
        for number, sequence in enumerate(later):
            if steps > 10 + 2 * number and not sequence.finish_reason:
                if not sequence.cached and sequence.generated == 0:
                    assert engine.adopt(sequence)
                ready.append(sequence)
        engine.step([(s, min(s.pending, 41)) for s in ready])
        if steps == 8:   # its tokens are fed again
            engine.evict(sampled)
            engine.unpin()
    for sequence in everyone:
        engine.close(sequence)
    return [(s.tokens, s.text, s.finish_reason) for s in everyone]


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_answers_are_those_of_the_native_runner(engines):
    """Chunks, pauses, evictions, shared pages and parts of them, options and formats."""
    theirs, ours = map(served, engines)
    assert theirs == ours and ours[2][1] in ('left', 'right')
    info = engines[0].info
    assert info.path == 'vLLM' and info.weights == 'fp32' and info.device == 'cpu'


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_two_processes_that_divide_the_model_answer_alike(directory, engines):
    """Each has half of the heads and half of the MLP; their sums differ by rounding."""
    engine = load_engine(EngineConfig(directory, backend='vllm', vllm_python=PYTHON,
                                      weights='fp32', tensor_parallel_size=2, **SETTINGS))
    assert len(_children(engine._runner._process._process.pid)) >= 2
    assert served(engine) == served(engines[1])
    engine._runner._process.close()


def _children(pid):
    return [child for each in Path(f'/proc/{pid}/task').glob('*/children')
            for child in each.read_text().split()]


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_a_step_is_cut_where_vllm_takes_fewer_tokens(engines, monkeypatch):
    monkeypatch.setattr(vllm_runner, 'STEP_TOKENS', 64)
    assert served(engines[0]) == served(engines[1])


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_a_context_can_be_full(engines):
    texts = []
    for engine in engines:
        sequence = engine.open(list(range(40, 220)), 60, Sampling())
        while not sequence.finish_reason:
            engine.step([(sequence, sequence.pending)])
        engine.close(sequence)
        texts.append(sequence.tokens)
    assert texts[0] == texts[1] and len(texts[0]) == SETTINGS['max_context']


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_its_steps_are_profiled(engines):
    model = measure(engines[0], no_progress, budget=.2)
    assert model.decode(1) > 0 and model.prefill_token_ms >= 0


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_logits_are_those_of_the_native_runner(engines):
    rows = []
    for engine in engines:
        slots = [engine._slots.take() for _ in range(3)]
        engine._slots.reserve([(slot, 64) for slot in slots])
        engine._runner.fill(slots, list(range(50)))
        rows.append(engine._runner.forward([
            Segment(slots[2], 50, [9], True), Segment(slots[0], 50, [3, 4], False),
            Segment(slots[1], 50, [5, 6, 7], True)]))
        for slot in slots:
            engine._slots.give(slot)
    assert rows[0].shape == rows[1].shape == (2, 320)
    assert abs(rows[0] - rows[1]).max() < 1e-4


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_a_process_that_has_ended_is_said_and_ends_nothing_else(directory):
    engine = load_engine(EngineConfig(directory, backend='vllm', vllm_python=PYTHON, **SETTINGS))
    process = engine._runner._process._process
    sequence = engine.open([1, 2, 3], 5, Sampling())
    launched = engine.launch([(sequence, 3)])   # nobody takes its tokens: the next step goes on
    assert launched is not None
    engine.step([(sequence, 3)])
    process.kill()
    process.wait()
    for _ in range(2):
        with pytest.raises(RuntimeError, match='the process of vLLM has ended'):
            engine.step([(sequence, 1)])
    assert sequence.generated == 1


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_the_process_ends_with_the_engine(directory):
    engine = load_engine(EngineConfig(directory, backend='vllm', vllm_python=PYTHON, **SETTINGS))
    process = engine._runner._process._process
    assert process.poll() is None
    engine._runner._process.close()
    process.wait(60)


STARTS = """
import sys, time
from slice_ros.engine.runners.vllm_process import StepProcess
process = StepProcess(sys.argv[1], 1)
print(process._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.vllm_process
@pytest.mark.timeout(900)
def test_the_process_ends_when_the_node_is_killed():
    node = subprocess.Popen([sys.executable, '-c', STARTS, PYTHON], stdout=subprocess.PIPE)
    stat = Path(f'/proc/{int(node.stdout.readline())}/stat')
    assert stat.exists()
    node.kill()
    node.wait()
    while stat.exists() and stat.read_text().rpartition(')')[2].split()[0] != 'Z':
        time.sleep(.2)   # its imports alone take seconds; the time-out of the test ends this


@pytest.mark.parametrize('settings, sentence', [
    ({'weights': 'int4'}, "weights 'int4' are not for engine.backend vllm"),
    ({'adapters': ('one=/no/such',)}, 'adapters are not mapped to vLLM'),
    ({'kv': '8'}, "8 bits are not for engine.backend vllm: leave engine.kv at 'auto'"),
    ({'vllm_python': '/no/such/python'}, '/no/such/python cannot be run'),
    ({'vllm_python': '/bin/false'}, 'the process of vLLM has ended'),
    ({'ray_address': '127.0.0.1:1'}, 'no Ray cluster answers at 127.0.0.1:1 .*refused'),
    ({'ray_address': '[::1]:99999'}, 'no Ray cluster answers'),
    ({'ray_address': f'{"a" * 200}:80'}, 'no Ray cluster answers'),
    ({'model': ''}, 'vLLM does not read .*gguf')])
def test_what_is_refused(settings, sentence, directory):
    given = {'model': directory, 'backend': 'vllm', 'vllm_python': sys.executable} | settings
    with pytest.raises(ModelError, match=sentence):
        load_engine(EngineConfig(**given, **SETTINGS))


def test_without_vllm_the_parameter_is_named(monkeypatch):
    monkeypatch.setattr(vllm_process.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ModelError, match='engine.vllm.python'):
        vllm_process.find_python('')
    assert vllm_process.find_python('/a/python') == '/a/python'


@pytest.mark.parametrize('address', [
    'localhost', ':6379', '--head:1', 'a b:1', 'ray://a:1', 'a:x', 'a' * 300 + ':1', '\n:1'])
def test_a_ray_address_is_a_host_and_a_port(address):
    with pytest.raises(ValueError, match='ray_address must be HOST:PORT'):
        EngineConfig(ray_address=address)


def test_a_step_is_cut_in_order():
    segments = [Segment(0, 5, [1, 2, 3], True), Segment(1, 0, list(range(9)), True),
                Segment(2, 7, [4], False)]
    parts = list(vllm_runner.cut(segments, 4))
    assert parts == [
        [segments[0], Segment(1, 0, [0], False)], [Segment(1, 1, [1, 2, 3, 4], False)],
        [Segment(1, 5, [5, 6, 7, 8], True)], [segments[2]]]
    assert list(vllm_runner.cut(segments, 13)) == [segments]
    assert list(vllm_runner.cut([], 4)) == [[]]
