# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters of the real model, chosen by each request through every way in."""

import json

from conftest import get, wait_until
import numpy as np
import pytest
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from safetensors.numpy import save_file
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.client import InvalidRequest
from slice_ros.engine import EngineConfig, load_engine, Sampling

RESULT = Generate.Result
PROMPT = {'prompt': 'What does a robot do all day?', 'max_tokens': 8}
# Of a layer of the embedded model, SmolLM2-135M: outputs and inputs.
SHAPES = {'self_attn.k_proj': (192, 576), 'mlp.up_proj': (1536, 576)}


def save(path, seed):
    """Write an adapter with large random numbers in two layers."""
    path.mkdir()
    dice, tensors = np.random.default_rng(seed), {}
    for layer in (3, 20):
        for part, (outputs, inputs) in SHAPES.items():
            name = f'base_model.model.model.layers.{layer}.{part}'
            tensors[f'{name}.lora_A.weight'] = dice.normal(size=(8, inputs)).astype(np.float32)
            tensors[f'{name}.lora_B.weight'] = dice.normal(size=(outputs, 8)).astype(np.float32)
    save_file(tensors, path / 'adapter_model.safetensors')
    (path / 'adapter_config.json').write_text(json.dumps(
        {'peft_type': 'LORA', 'r': 8, 'lora_alpha': 4}))


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    """The embedded model with two adapters, in place of the one of the other tests."""
    folder = tmp_path_factory.mktemp('adapters')
    for seed, name in enumerate(('kitchen', 'lab')):
        save(folder / name, seed)
    return load_engine(EngineConfig(max_context=256, slots=6, threads=2, adapters=tuple(
        f'{name}={folder / name}' for name in ('kitchen', 'lab'))))


@pytest.fixture(scope='module')
def wanted(node):
    """Return the answer of the engine with each adapter, and with none."""
    texts, engine = {}, node.engine
    for name in ('', 'kitchen', 'lab'):
        sequence = engine.open(engine.encode_chat([('user', PROMPT['prompt'])]), 8, Sampling(),
                               adapter=name)
        while not sequence.finish_reason:
            engine.step([(sequence, sequence.pending)])
        engine.close(sequence)
        texts[name] = sequence.text
    assert len(set(texts.values())) == 3
    return texts


def test_goals_and_calls_beside_each_other_have_their_own(caller, wanted):
    handles = [(name, caller.send(adapter=name, **PROMPT)) for name in (*wanted, *wanted)]
    called = caller.text.call_async(caller.text.srv_type.Request(
        slo_class='control', adapter='lab', **PROMPT))
    caller.prompts['navigation'].publish(msg.Prompt(
        request_id='by topic', adapter='kitchen', **PROMPT))
    for name, handle in handles:
        assert get(handle.get_result_async()).result.text == wanted[name]
    assert get(called).text == wanted['lab']
    chunks = caller.chunks_of('by topic', 'navigation')
    assert ''.join(chunk.text for chunk in chunks) == wanted['kitchen']


def test_the_client_library_names_one(client, play, wanted):
    assert play(client.ask(PROMPT['prompt'], max_tokens=8, adapter='lab')).text == wanted['lab']
    with pytest.raises(InvalidRequest, match='kitchen, lab'):
        play(client.ask('Hi', adapter='attic'))


@pytest.mark.parametrize('name', ['attic', 'Kitchen', 'kitchen ', '\n', 'x' * 64, 'x' * 100000])
def test_an_unknown_one_is_an_invalid_request(caller, name):
    result = caller.ask(adapter=name, **PROMPT)[1]
    assert result.error_code == RESULT.INVALID_REQUEST and 'adapter' in result.error_msg
    assert len(result.error_msg) < 300
    if len(name) < 64:
        assert 'kitchen, lab' in result.error_msg


def test_the_status_lists_them(caller):
    assert list(caller.call(caller.status).engine.adapters) == ['kitchen', 'lab']


def test_they_cannot_change_while_the_model_is_loaded(node, caller):
    client = caller.create_client(SetParametersAtomically, '/slice/set_parameters_atomically')
    assert client.wait_for_service(20)
    for value, word in ((['attic=/tmp'], 'unconfigured'), (['attic'], 'NAME=DIRECTORY'),
                        (['a=x', 'a=y'], 'different names'), ('a=x', 'string[]')):
        result = get(client.call_async(SetParametersAtomically.Request(parameters=[
            Parameter('engine.adapters', value=value).to_parameter_msg()]))).result
        assert not result.successful and 'engine.adapters' in result.reason
        assert word in result.reason
    wait_until(lambda: node.get_parameter('engine.adapters').value == [''])
    caller.destroy_client(client)
