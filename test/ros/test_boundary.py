# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever is raised at a boundary is answered to this caller, and a neighbour notices nothing."""

from conftest import get, live, LONG, wait_until
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.action.server import ServerGoalHandle
from rclpy.parameter import Parameter
from slice_ros import msg, srv
from slice_ros.action import Generate
from slice_ros.engine import opening
from slice_ros.engine.pooling import Pooling
from slice_ros.ros import calls, conversions, preparation, requests
from slice_ros.ros.callers import goal_server
from slice_ros.ros.calls import Call
from slice_ros.ros.class_topics import ClassTopics
from slice_ros.ros.host import Host
from slice_ros.ros.isolation import bounds, contents
from slice_ros.ros.isolation.workers import Workers
from slice_ros.ros.parameters import live_parameters, Parameters
from slice_ros.ros.preparation import Preparation
from slice_ros.serving import Server
from slice_ros.serving.intake import Intake
from slice_ros.serving.sessions import Sessions

Result = Generate.Result
# With a session, so that every call is made.
HOSTILE = {'prompt': 'Poison', 'max_tokens': 4, 'slo_class': 'control',
           'session_id': 'poisoned', 'reset_session': True}


class Panic(BaseException):
    """As a native library raises it: no `Exception`."""


FAULTS = (ValueError('unforeseen'), RecursionError(), OverflowError(), Panic('native'))
# Each call that taking in, reading, submitting and answering a request makes: where it is looked
# up, and by which name. The neighbour makes none of them while the fault is injected.
CALLS = (
    (requests, 'Call'), (Call, 'publish_on'), (Host, 'serving'),
    (conversions, 'slo_class'), (conversions, 'session_id'), (conversions, 'sampling'),
    (conversions, 'messages'), (conversions, 'response_format'),
    (bounds, 'check_id'), (bounds, 'check_request'), (contents, 'taken'), (bounds, 'is_id'),
    (ClassTopics, 'publishers'), (Preparation, 'begin'),
    (preparation, 'is_heavy'), (Workers, 'submit'), (Server, 'check'), (Server, 'submit'),
    (Intake, 'submit'), (Sessions, 'begin'), (opening, 'checked_stops'), (goal_server, 'answered'),
    (calls, 'report_message'), (calls, 'session_hash'))
BEFORE_TOPICS = ((requests, 'Call'), (bounds, 'is_id'), (Call, 'publish_on'),
                 (ClassTopics, 'publishers'))   # nothing can be published yet
OF_GOALS = ((goal_server, '_request_id'), (ServerGoalHandle, 'execute'),
            (ServerGoalHandle, 'publish_feedback'), (ServerGoalHandle, 'succeed'))


EVERY = 1000


@pytest.fixture
def fault(monkeypatch):
    """Return a function that makes calls of one name raise, the next `times` of them."""
    def inject(owner, name, error, times=1):
        real, left = getattr(owner, name), [times]

        def raising(*arguments, **options):
            if left[0]:
                left[0] -= 1
                raise error
            return real(*arguments, **options)
        monkeypatch.setattr(owner, name, raising)
        return left
    return inject


@pytest.fixture
def neighbour(node, caller):
    """A service call that is being answered during the test, and then to its last token."""
    answer = caller.text.call_async(caller.text.srv_type.Request(slo_class='dialogue', **LONG))
    wait_until(lambda: any(request.generated for request in live(node)))
    (job,) = node.server._shared.live()
    yield
    assert not answer.done()
    job.sequence.limit = 1   # it has more
    assert get(answer).error_code == Result.FORMAT_INCOMPLETE   # as the format has more words
    wait_until(lambda: not node.requests.live and not node.requests.waiting)
    assert not node.requests.preparation


@pytest.mark.parametrize('way, owner, name', [
    *(('action', *call) for call in CALLS + OF_GOALS), *(('service', *call) for call in CALLS),
    *(('topic', *call) for call in CALLS if call != (goal_server, 'answered'))],
    ids=lambda each: getattr(each, '__name__', each))
def test_a_fault_at_any_call_is_answered(node, caller, neighbour, fault, monkeypatch, way, owner,
                                         name):
    left = fault(owner, name, FAULTS[len(name) % len(FAULTS)])
    if way == 'action':
        answer = get(caller.send(**HOSTILE).get_result_async()).result
    elif way == 'service':
        answer = get(caller.text.call_async(caller.text.srv_type.Request(**HOSTILE)))
    else:
        fields = {name: value for name, value in HOSTILE.items() if name != 'slo_class'}
        caller.prompts['control'].publish(msg.Prompt(request_id=f'{name} fails', **fields))
        wait_until(lambda: not left[0])
        if (owner, name) not in BEFORE_TOPICS:   # then only the log can say it
            answer = caller.chunks_of(f'{name} fails', 'control')[-1]
    wait_until(lambda: not left[0])
    if way != 'topic' or (owner, name) not in BEFORE_TOPICS:
        assert answer.error_code in (Result.NONE, Result.ENGINE_FAILURE), answer
        assert ('log' in answer.error_msg) == (answer.error_code > 0)
    monkeypatch.undo()
    wait_until(lambda: not node.requests.preparation
               and not any(request.slo.name == 'control' for request in live(node)))
    again = caller.ask(**HOSTILE)[1]   # its session is free, too
    assert again.error_code == Result.NONE, again.error_msg


def test_an_answer_that_cannot_be_published_is_a_failure_of_the_node(node, caller, neighbour,
                                                                     monkeypatch):
    def publish(chunk):
        raise Panic('no memory for a chunk')
    monkeypatch.setattr(node.requests._topics._tokens['control'], 'publish', publish)
    result = caller.ask(**HOSTILE)[1]
    assert result.error_code == Result.ENGINE_FAILURE and 'Panic' in result.error_msg


def error_of(response):
    """Return what a response says that its caller did wrong."""
    result, *_ = getattr(response, 'results', [getattr(response, 'result', response)])
    return getattr(result, 'error_msg', '') or getattr(result, 'reason', '') or result.state


TYPO = ParameterMessage(name='limits.max_queued', value=ParameterValue(type=99))
VALUE = Parameter('limits.max_queued', value=40).to_parameter_msg()


@pytest.mark.parametrize('service, kind, fields, owner, name', [
    *(('check_admission', srv.CheckAdmission, {'prompt': 'Hi', 'slo_class': 'control'}, *call)
      for call in ((Host, 'serving'), (conversions, 'slo_class'), (bounds, 'check_texts'),
                   (contents, 'taken'), (bounds, 'text_length'), (Workers, 'compute'),
                   (conversions, 'messages'), (Server, 'predict'))),
    *(('embed', srv.Embed, {'texts': ['Hi'], 'slo_class': 'control'}, *call)
      for call in ((Host, 'serving'), (conversions, 'configured_class'),
                   (bounds, 'check_embedded'), (contents, 'taken'), (Workers, 'compute'),
                   (Server, 'embed'), (Pooling, 'vector'))),
    *(('get_status', srv.GetStatus, {}, *call)
      for call in ((conversions, 'engine_message'), (conversions, 'state_message'))),
    *(('cancel', srv.CancelRequest, {'request_id': 'nobody'}, *call)
      for call in ((Host, 'serving'), (bounds, 'check_id'), (Preparation, 'cancel'),
                   (Server, 'cancel'))),
    *(('cancel', srv.CancelRequest, {'slo_class': 'navigation'}, *call)
      for call in ((Preparation, 'of_class'), (Server, 'cancel_class'))),
    ('set_parameters', SetParameters, {'parameters': [TYPO]}, None, ''),
    ('set_parameters_atomically', SetParametersAtomically, {'parameters': [TYPO]}, None, ''),
    *(('set_parameters', SetParameters, {'parameters': [VALUE]}, *call)
      for call in ((live_parameters, 'settings_from'), (live_parameters, 'check_value'),
                   (Parameters, '_follow_classes')))],
    ids=lambda each: getattr(each, '__name__', None))
def test_a_fault_in_a_service_is_answered_and_logged(
        node, caller, neighbour, fault, caplog, service, kind, fields, owner, name):
    client = caller.create_client(kind, f'/slice/{service}')
    assert client.wait_for_service(20)
    if owner:
        fault(owner, name, FAULTS[len(name) % len(FAULTS)], EVERY)   # the status timer has some
    response = get(client.call_async(kind.Request(**fields)))
    assert 'log' in error_of(response)
    assert 'Traceback' in caplog.text or 'Error' in caplog.text
    caller.destroy_client(client)
