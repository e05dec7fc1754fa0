# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The router between two slice nodes without a model, whose faults are timed."""

import uuid

from action_msgs.msg import GoalStatus
from conftest import Caller, get, Spinning, wait_until
from diagnostic_msgs.msg import DiagnosticArray
from fake_slice import FakeSlice
import pytest
from rclpy.parameter import Parameter
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.ros.callers.caller_ids import new_client, new_request_id
from slice_ros.router.router_node import RouterNode, TICK_S
from unique_identifier_msgs.msg import UUID

RESULT = Generate.Result
GONE_S = 1.0     # without an answer, a node counts as gone
MARGIN_S = 0.2


@pytest.fixture(scope='module')
def nodes(ros):
    """The fakes (near, far), the router and a caller."""
    near, far = FakeSlice('near'), FakeSlice('far')
    router = RouterNode(parameter_overrides=[
        Parameter(name, value=value) for name, value in (
            ('nodes', ['/near/slice', '/far/slice']), ('answer_within_s', GONE_S),
            ('ping_s', 0.1), ('margin_s', MARGIN_S), ('choose_s', 5.0), ('cache_s', 0.05),
            ('max_live', 8))])
    caller = Caller('/slice_router')
    caller.health = []
    caller.create_subscription(DiagnosticArray, '/diagnostics', caller.health.append, 10)
    spinning = [Spinning(near, far), Spinning(router), Spinning(caller)]
    assert caller.generate.wait_for_server(20)
    for client in (caller.text, caller.admission, caller.canceller, caller.status):
        assert client.wait_for_service(20)
    yield near, far, router, caller
    router.close()
    for each in reversed(spinning):
        each.close()
    for each in (caller, router, near, far):
        each.destroy_node()


@pytest.fixture
def near(nodes):
    nodes[0].reset()
    return nodes[0]


@pytest.fixture
def far(nodes):
    nodes[1].reset(completion_ms=900.0)   # the near one is sooner, if nothing else is said
    return nodes[1]


@pytest.fixture
def router(nodes, near, far):
    """The router, once both nodes serve."""
    router = nodes[2]
    wait_until(lambda: all(link.usable for link in router.forwarding.links.values()))
    yield router
    wait_until(lambda: not router.forwarding.live, what='a request is left over')


@pytest.fixture
def caller(nodes, router):
    return nodes[3]


def ask(caller, **goal):
    """Send a goal and return (status, result)."""
    return caller.ask(**{'prompt': 'Go?', 'tpot_ms': unique(), **goal})


def unique():
    """Return an objective that no forecast is known for."""
    unique.last = getattr(unique, 'last', 50e3) + 1   # and that any machine keeps
    return unique.last


def wait_at(near, far):
    """Have requests wait at `near`, which never answers them, and is not late for long."""
    near.reset(way='silent', ttft_ms=20e3)
    far.feasible, far.completion_ms = False, 9e3   # else it would be sooner


def test_the_soonest_node_serves(near, far, caller):
    assert ask(caller)[1].text == 'near says yes'
    near.completion_ms = 5e3
    assert ask(caller)[1].text == 'far says yes'
    far.feasible = False
    status, result = ask(caller)
    assert (status, result.text) == (GoalStatus.STATUS_SUCCEEDED, 'near says yes')
    assert result.report.request_id == result.request_id != 'theirs' and result.report.attained
    assert caller.report_of(result.request_id).requested_class == 'dialogue'


def test_an_answer_streams_under_the_callers_id(near, caller):
    pieces = []
    near.way = 'wait'
    handle = caller.send(feedback=lambda message: pieces.append(message.feedback), prompt='Go?',
                         tpot_ms=unique())
    wait_until(lambda: len(pieces) == 3)   # before its end
    near.release()
    result = get(handle.get_result_async()).result
    assert ''.join(p.text for p in pieces) == result.text == 'near says yes'
    assert [p.sequence for p in pieces] == [0, 1, 2]
    assert result.request_id == str(uuid.UUID(bytes=bytes(handle.goal_id.uuid)))


def test_log_probabilities_pass_through(near, caller):
    pieces = []
    near.way = 'wait'
    handle = caller.send(feedback=lambda message: pieces.append(message.feedback), prompt='Go?',
                         tpot_ms=unique(), sampling=msg.SamplingParams(logprobs=True))
    wait_until(lambda: len(pieces) == 3)
    near.release()
    result = get(handle.get_result_async()).result
    assert bytes(result.logprobs.texts) == result.text.encode() == b'near says yes'
    assert [list(piece.logprobs.tokens) for piece in pieces] == [[4], [5], [4]]
    assert list(result.logprobs.tokens) == [4, 5, 4]


@pytest.mark.parametrize('code', [RESULT.QUEUE_FULL, RESULT.NOT_READY, RESULT.PROMPT_TOO_LONG])
def test_what_one_node_refuses_another_serves(near, far, router, caller, code):
    near.reset(way=code)
    moved = router.forwarding.moved
    assert ask(caller)[1].text == 'far says yes'
    assert len(near.goals) == len(far.goals) == 1 and router.forwarding.moved == moved + 1


def test_what_all_refuse_is_refused_as_the_last_one_said(near, far, caller):
    near.reset(way=RESULT.QUEUE_FULL)
    far.reset(way=RESULT.INFEASIBLE_SLO)
    status, result = ask(caller)
    assert status == GoalStatus.STATUS_ABORTED and result.error_code == RESULT.INFEASIBLE_SLO
    assert result.error_msg == 'refused' and not result.report.attained
    far.reset(way=RESULT.INVALID_REQUEST)   # as it would be everywhere
    near.reset()
    near.completion_ms = 5e3
    assert ask(caller)[1].error_code == RESULT.INVALID_REQUEST and not near.goals


def test_a_node_that_never_answers_is_left_in_time(near, far, router, caller):
    near.reset(way='silent')
    result = ask(caller, slo_class='control', deadline_ms=60e3)[1]
    assert result.text == 'far says yes'
    assert router.forwarding.links['/near/slice'].usable   # it was not gone
    wait_until(lambda: near.cancelled == 1)
    goal, report = far.goals[0], result.report
    waited = 1e3 * (MARGIN_S - TICK_S)
    assert 0 < goal.deadline_ms < 60e3 - waited   # what is left of it
    assert report.slo.deadline_ms == 60e3 and report.ttft_ms > waited
    assert report.ttft_met == (report.ttft_ms <= 500.0)


def test_a_passed_objective_is_not_asked_for_and_a_passed_deadline_ends(near, far, caller):
    near.reset(way='silent')
    ask(caller, slo_class='control', deadline_ms=60e3, ttft_ms=10.0)
    assert far.goals[0].ttft_ms == float('inf') and far.goals[0].deadline_ms < 60e3
    far.reset(completion_ms=900.0)
    result = ask(caller, deadline_ms=200.0)[1]
    assert result.error_code == RESULT.DEADLINE_MISSED and '/near/slice' in result.error_msg
    assert not far.goals


def test_a_node_that_dies_after_a_token_is_named_and_no_other_answer_follows(near, far, caller):
    near.reset(way='die')
    status, result = ask(caller)
    assert status == GoalStatus.STATUS_ABORTED and result.error_code == RESULT.ENGINE_FAILURE
    assert result.text == 'near' and '/near/slice went away' in result.error_msg
    assert not far.goals and result.report.output_tokens == 1
    assert ask(caller)[1].text == 'far says yes'   # the next request is not sent there


def test_a_caller_that_has_received_nothing_gets_the_whole_answer_of_another(near, far, caller):
    near.reset(way='die')
    answer = caller.call(caller.text, prompt='Go?', slo_class='dialogue', tpot_ms=unique())
    assert answer.text == 'far says yes' and answer.error_code == RESULT.NONE


def test_without_any_node_the_answer_says_so(near, far, router, caller):
    near.mute = far.mute = True
    wait_until(lambda: not any(link.usable for link in router.forwarding.links.values()))
    result = ask(caller)[1]
    assert result.error_code == RESULT.NOT_READY
    assert '/near/slice is not answering' in result.error_msg
    assert caller.call(caller.admission, prompt='Go?', slo_class='control').error_code == (
        RESULT.NOT_READY)
    assert caller.call(caller.status).state == 'not answering'
    near.mute = False
    wait_until(lambda: router.forwarding.links['/near/slice'].usable)   # and it comes back
    assert ask(caller)[1].text == 'near says yes'


def test_a_cancel_reaches_the_node(near, far, router, caller):
    wait_at(near, far)
    handle = caller.send(prompt='Go?', tpot_ms=unique())
    wait_until(lambda: near.goals)
    get(handle.cancel_goal_async())
    answer = get(handle.get_result_async())
    assert answer.status == GoalStatus.STATUS_CANCELED
    assert answer.result.error_code == RESULT.CANCELLED
    wait_until(lambda: near.cancelled == 1)
    handles = [caller.send(prompt='Go?', tpot_ms=unique()) for _ in range(2)]
    assert len(caller.call(caller.canceller, slo_class='dialogue').cancelled) == 2
    for handle in handles:
        assert get(handle.get_result_async()).result.error_code == RESULT.CANCELLED
    assert not caller.call(caller.canceller, request_id='unknown').cancelled
    assert caller.call(caller.canceller).error_code == RESULT.INVALID_REQUEST


def test_the_request_of_a_dead_client_ends(near, far, router, caller):
    wait_at(near, far)
    name = uuid.UUID(new_request_id(new_client()))   # of a client whose lease nobody has seen
    goal = Generate.Goal(prompt='Go?', slo_class='dialogue', tpot_ms=unique())
    handle = get(get(caller.executor.create_task(
        caller.generate.send_goal_async, goal, None, UUID(uuid=list(name.bytes)))))
    result = get(handle.get_result_async()).result
    assert result.error_code == RESULT.CANCELLED and 'client has ended' in result.error_msg
    wait_until(lambda: near.cancelled == 1)


def test_a_conversation_stays_with_its_node(near, far, router, caller):
    near.completion_ms = 5e3
    assert ask(caller, session_id='day')[1].text == 'far says yes'
    near.completion_ms = 10.0
    assert ask(caller, session_id='day')[1].text == 'far says yes'
    far.mute = True
    wait_until(lambda: not router.forwarding.links['/far/slice'].usable)
    result = ask(caller, session_id='day')[1]
    assert result.error_code == RESULT.NOT_READY and 'reset_session' in result.error_msg
    assert ask(caller, session_id='day', reset_session=True)[1].text == 'near says yes'
    far.mute = False
    assert ask(caller, session_id='day')[1].text == 'near says yes'


def test_a_conversation_that_no_node_began_goes_anywhere(near, far, caller):
    near.reset(way=RESULT.QUEUE_FULL)
    far.reset(way=RESULT.QUEUE_FULL)
    assert ask(caller, session_id='night')[1].error_code == RESULT.QUEUE_FULL
    near.reset()
    assert ask(caller, session_id='night')[1].text == 'near says yes'


def test_the_router_is_bounded_and_refuses_what_it_cannot_read(near, far, router, caller):
    wait_at(near, far)
    handles = [caller.send(prompt='Go?', tpot_ms=unique()) for _ in range(8)]
    result = ask(caller)[1]
    assert result.error_code == RESULT.QUEUE_FULL and 'max_live' in result.error_msg
    listed = caller.call(caller.status)
    assert len(listed.scheduler.requests) == 8 and listed.state == 'ready'
    for handle in handles:
        get(handle.cancel_goal_async())
    wait_until(lambda: not router.forwarding.live)
    assert ask(caller, ttft_ms=-1.0)[1].error_code == RESULT.INVALID_REQUEST
    assert ask(caller, slo_class='no class')[1].error_code == RESULT.UNKNOWN_SLO_CLASS
    near.reset(way=RESULT.UNKNOWN_SLO_CLASS)
    answer = caller.call(caller.text, prompt='Go?', slo_class='x', request_id='é\n' * 99)
    assert answer.error_code == RESULT.INVALID_REQUEST and answer.request_id.isascii()


def test_admission_is_that_of_the_soonest_node_with_the_link(near, far, router, caller):
    near.completion_ms = 5e3
    answer = caller.call(caller.admission, prompt='Go?', slo_class='control', max_tokens=3)
    delay = router.forwarding.links['/far/slice'].delay_ms
    assert answer.feasible and delay > 0
    assert 900.0 < answer.completion_ms < 5e3 and answer.ttft_ms > 20.0


def test_counters_state_and_diagnostics(near, far, router, caller):
    def dialogue():
        return next(c for c in caller.call(caller.status).scheduler.classes
                    if c.slo.name == 'dialogue')
    before = dialogue()
    ask(caller)
    near.reset(way=RESULT.QUEUE_FULL)
    far.reset(way=RESULT.QUEUE_FULL)
    ask(caller)
    after = dialogue()
    assert (after.received - before.received, after.attained - before.attained,
            after.rejected - before.rejected) == (2, 1, 1)
    wait_until(lambda: caller.states and caller.states[-1].policy == 'router')

    def levels():
        return {status.name: status.level for array in caller.health[-1:]
                for status in array.status}
    wait_until(lambda: levels().get('slice_router: /far/slice') == b'\0')
    far.state = 'inactive'
    wait_until(lambda: levels().get('slice_router: /far/slice') == b'\1'
               and levels()['slice_router: router'] == b'\1')


def test_parameters_are_described_and_fixed(router):
    for name in ('nodes', 'answer_within_s', 'max_live'):
        described = router.describe_parameter(name)
        assert described.read_only and described.description
    (result,) = router.set_parameters([Parameter('max_live', value=9)])
    assert not result.successful
