# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node as a process, its steps computed by vLLM: set by parameters alone."""

import os
from pathlib import Path
import sys

from action_msgs.msg import GoalStatus
from conftest import Caller, get, Spinning, wait_until
import pytest
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.bench.processes import NodeProcess

sys.path.append(str(Path(__file__).parents[1] / 'unit' / 'engine'))
import tiny  # noqa: E402

pytestmark = [pytest.mark.vllm_process, pytest.mark.timeout(900)]
START_S = 600   # to load the model on a busy machine
ASK = {'prompt': 'abc', 'max_tokens': 12}


@pytest.fixture(scope='module')
def process(tmp_path_factory):
    """Start a node on vLLM, with a tiny model."""
    model = tmp_path_factory.mktemp('tiny')
    tiny.save(model, tiny.llama(head_dim=32, hidden_size=128, eos_token_id=None))
    with NodeProcess([
            'engine.backend:=vllm', f'engine.vllm.python:={os.environ["SLICE_TEST_VLLM"]}',
            f'engine.model:={model}', 'engine.max_context:=256', 'engine.slots:=8',
            'engine.memory_fraction:=0.05', 'engine.threads:=1', 'engine.weights:=fp32',
            'limits.max_tokens:=200']) as started:
        yield started


@pytest.fixture(scope='module')
def caller(ros, process):
    caller = Caller()
    spinning = Spinning(caller)
    assert caller.status.wait_for_service(START_S) and caller.generate.wait_for_server(60)
    wait_until(lambda: not process.alive or state(caller) == 'ready', START_S)
    assert process.alive, process.end_of_log()
    yield caller
    spinning.close()
    caller.destroy_node()


def state(caller):
    """Return the state of the node; '' where its answer is lost, as the first one may be."""
    try:
        return get(caller.status.call_async(caller.status.srv_type.Request()), 20).state
    except AssertionError:
        return ''


def processes_of_vllm(process):
    """Return the ids of the processes of vLLM that the node has started."""
    listed = Path(f'/proc/{process.process.pid}/task').glob('*/children')
    started = [number for each in listed for number in each.read_text().split()]
    return [int(number) for number in started
            if b'step_process' in Path(f'/proc/{number}/cmdline').read_bytes()]


def test_the_status_names_vllm(caller):
    engine = caller.call(caller.status).engine
    assert engine.path == 'vLLM' and engine.weights == 'fp32'


@pytest.mark.parametrize('name', ['control', 'navigation', 'dialogue'])
def test_each_class_is_answered(name, caller):
    pieces = []
    handle = caller.send(lambda m: pieces.append(m.feedback.text), slo_class=name, **ASK)
    response = get(handle.get_result_async())
    assert response.status == GoalStatus.STATUS_SUCCEEDED, response.result.error_msg
    assert response.result.report.output_tokens == 12 and ''.join(pieces) == response.result.text


def test_formats_and_other_requests_go_side_by_side(caller):
    others = [caller.send(prompt='xyz', max_tokens=40).get_result_async() for _ in range(3)]
    status, result = caller.ask(**ASK, response_format=msg.ResponseFormat(
        type='choice', choices=['left', 'right']))
    assert status == GoalStatus.STATUS_SUCCEEDED and result.text in ('left', 'right')
    texts = {get(other).result.text for other in others}
    assert len(texts) == 1   # alone or together, from the cache or not: greedy, in fp32


def test_a_class_changes_while_it_is_served(caller):
    setter = caller.create_client(SetParametersAtomically, '/slice/set_parameters_atomically')
    assert setter.wait_for_service(20)

    def set_parameters(**values):
        return caller.call(setter, parameters=[
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()]).result
    # More than have a place at once: the last ones are live when the change arrives.
    asked = [caller.send(slo_class='control', prompt='abc', max_tokens=150).get_result_async()
             for _ in range(16)]
    done = set_parameters(**{f'slo__control__{objective}_ms': 1e6 for objective in (
        'ttft', 'tpot', 'deadline')})
    assert done.successful, done.reason
    results = [get(each, 120).result for each in asked]
    assert all(result.report.served for result in results)
    assert results[-1].report.slo.tpot_ms == 1e6 and results[-1].report.attained
    # Another program than that of the start cannot be run.
    assert not set_parameters(engine__vllm__python='/bin/sh').successful


def test_a_cancelled_goal_frees_its_place(caller):
    handle = caller.send(prompt='abc', max_tokens=200)
    get(handle.cancel_goal_async())
    assert get(handle.get_result_async()).status == GoalStatus.STATUS_CANCELED
    status, _ = caller.ask(**ASK)
    assert status == GoalStatus.STATUS_SUCCEEDED


def test_what_is_not_mapped_is_refused_in_a_sentence(caller):
    seen = msg.ChatMessage(role='user', content='abc', compressed_images=[
        CompressedImage(format='png', data=[1, 2, 3])])
    _, result = caller.ask(messages=[seen], max_tokens=4)
    assert result.error_code == Generate.Result.INVALID_REQUEST and 'image' in result.error_msg
    _, result = caller.ask(**ASK, adapter='one')
    assert result.error_code == Generate.Result.INVALID_REQUEST and 'adapter' in result.error_msg
    answer = caller.call(caller.embedder, texts=['abc'])
    assert answer.error_code and 'embeddings' in answer.error_msg


def test_vllm_ends_and_the_node_says_so_and_goes_on(caller, process):
    """The last test: nothing is served after it, until the node is configured again."""
    started = processes_of_vllm(process)
    assert len(started) == 1
    os.kill(started[0], 9)
    _, result = caller.ask(**ASK)
    assert result.error_code == Generate.Result.ENGINE_FAILURE
    assert 'the process of vLLM has ended' in result.error_msg
    assert caller.call(caller.status).state == 'ready'
